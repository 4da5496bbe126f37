"""Checks of rows: each finds its fault, in English and Japanese, and nothing in rows without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_encoders import write_small_encoder
from small_models import write_small_tokenizer
from small_tables import tickets, write_csv

from kogata.engine.chat import Template
from kogata.engine.check._common import Examined, Finding, check_names, run_checks
from kogata.engine.check.personal import personal
from kogata.engine.checking import check_rows
from kogata.engine.example_reading import Reading
from kogata.engine.examples import Example
from kogata.engine.load import load_tokenizer
from kogata.engine.model_view import ModelView


def rows_of(pairs: list[tuple[str, str]], split: str = "train") -> list[tuple[str, Example]]:
    found = []
    for n, (q, a) in enumerate(pairs, 2):
        fields = {"prompt": q, "completion": a}
        found.append((split, Example(id=str(n), form="completion", source=f"a.csv:{n}", fields=fields)))
    return found


def labelled(pairs: list[tuple[str, str]], split: str = "train") -> list[tuple[str, Example]]:
    found = []
    for n, (text, label) in enumerate(pairs, 2):
        fields = {"text": text, "label": label}
        found.append((split, Example(id=str(n), form="label", source=f"{split}.csv:{n}", fields=fields)))
    return found


def found_in(examples: list[tuple[str, Example]]) -> dict[str, Finding]:
    return {finding.name: finding for finding in run_checks(Examined(examples=examples, rows=len(examples)))}


GOOD = [(question, answer) for _, question, answer in tickets(30)]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> ModelView:
    folder = tmp_path_factory.mktemp("decoder")
    write_small_tokenizer(folder)
    tokenizer, template = load_tokenizer(folder), Template.load(folder)
    return ModelView(name="small", role="decoder", tokenizer=tokenizer, template=template, context=200)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelView:
    folder = tmp_path_factory.mktemp("encoder")
    write_small_encoder(folder)
    return ModelView.of(str(folder))


def test_there_are_checks_and_good_rows_pass() -> None:
    assert len(check_names()) >= 9
    assert not found_in(rows_of(GOOD))


def test_copies_and_contradictions() -> None:
    rows = [*GOOD, ("注文1はいつ届きますか。 ", "注文1は２日後に届きます。"), (GOOD[2][0], "分かりません")]
    found = found_in(rows_of(rows))
    assert found["duplicates"].count == 1, "width and white space are no difference"
    (row,) = found["duplicates"].rows
    assert row["source"] == "a.csv:32" and row["same_as"] == "a.csv:3"
    assert found["contradictions"].count == 2


def test_near_copies_and_leaks_between_splits() -> None:
    long = "The parcel with order number {} has left our warehouse in the north and will arrive on Monday."
    texts = [(f"Where is my parcel number {n}, please tell me soon?", long.format(n)) for n in (1, 200)]
    found = found_in([*rows_of([*GOOD, texts[0]]), *rows_of([texts[1]], "heldout")])
    assert "near_duplicates" not in found
    leak = found["leaks between splits"]
    assert leak.count == 1 and leak.rows[0]["split"] == "heldout" and leak.rows[0]["same_as"] == "a.csv:32"
    within = found_in(rows_of([*GOOD, *texts]))["near_duplicates"]
    assert within.count == 1 and within.rows[0]["alike"] >= 0.8
    japanese = (
        "お客様のご注文の品は本日倉庫を出発しましたので、明後日の午前中にはお手元に届く見込みです。番号{}"
    )
    assert "near_duplicates" in found_in(rows_of([("いつ届くか", japanese.format(n)) for n in (1, 22)]))
    torn = [("どこで荷物を受け取れますか、教えてください", label) for label in "ab"]
    assert "near_duplicates" not in found_in(labelled(torn))


def test_boilerplate_and_common_openings() -> None:
    often = [(f"質問その{n}", "お問い合わせありがとうございます。担当に伝えます。") for n in range(8)]
    found = found_in(rows_of([*GOOD[:12], *often]))
    assert found["repeated answers"].count == 8 and found["repeated answers"].rows[0]["times"] == 8
    assert "お問い合わせありがとうございます" in found["common opening"].what
    assert "repeated answers" not in found_in(labelled([(f"t{n}", "yes") for n in range(8)] + [("u", "no")]))


def test_labels() -> None:
    few = found_in(labelled([("t", "a"), *[(f"u{n}", "b") for n in range(6)]]))
    assert few["rare labels"].numbers["labels"] == {"a": 1}
    assert found_in(labelled([(f"t{n}", "a") for n in range(6)]))["one class"].level == "problem"
    seen = labelled([(f"t{n}", "ab"[n % 2]) for n in range(12)])
    unseen = found_in([*seen, *labelled([("x", "c")], "heldout")])
    assert unseen["unseen labels"].rows[0]["source"] == "heldout.csv:2"
    alike = found_in(labelled([(f"t{n}", ("肯定", " 肯定", "ＯＫ", "ok")[n % 4]) for n in range(24)]))
    assert alike["labels spelt alike"].count == 24 and "'ok' / 'ＯＫ'" in alike["labels spelt alike"].what
    assert "nearly as many labels as rows" in found_in(labelled([(f"t{n}", f"l{n}") for n in range(9)]))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jane.doe@example.org today", ["mail"]),
        ("電話は０３－１２３４－５６７８です", ["phone"]),
        ("call (415) 555-2671 or +44 20 7946 0958", ["phone", "phone"]),
        ("携帯は09012345678", ["phone"]),
        ("〒100-0001 東京都", ["postcode"]),
        ("郵便番号は150-0002です", ["postcode"]),
        ("card 4539 1488 0343 6467", ["card"]),
        ("山田太郎様、鈴木 様", ["name", "name"]),
        ("お客様の仕様、皆様、多様な担当者様", []),
        ("version 1.2.3, 2025-11-24, order 123-4567, 12345", []),
    ],
)
def test_personal_data(text: str, kinds: list[str]) -> None:
    example = Example(id="a", form="text", fields={"text": text})
    assert [kind for kind, _ in personal(example)] == kinds


# With a model


def test_lengths_and_the_mask_of_a_decoder(decoder: ModelView, tmp_path: Path) -> None:
    rows = [*GOOD[:6], ("長い", "あ" * 400)]
    path = write_csv(tmp_path / "a.csv", [("質問", "回答"), *rows])
    found = check_rows(Reading(path=str(path)), decoder)
    lengths, beyond = found.finding("lengths"), found.finding("longer than the context")
    assert lengths is not None and beyond is not None
    assert lengths.numbers["beyond"] == 1 and sum(lengths.numbers["counts"]) == 6
    assert lengths.numbers["edges"][-1] == 200 and lengths.numbers["longest"] > 400
    assert beyond.level == "problem" and beyond.rows[0]["source"] == "a.csv:8" and found.problems == 1
    mask = found.finding("mask")
    assert mask is not None and 0 < mask.numbers["trained"] < mask.numbers["tokens"]
    pieces = mask.numbers["view"][0]["pieces"]
    trained = "".join(piece["text"] for piece in pieces if piece["weight"])
    assert trained.startswith(GOOD[0][1]) and GOOD[0][0] not in trained
    assert GOOD[0][0] in "".join(piece["text"] for piece in pieces if not piece["weight"])
    whole = check_rows(Reading(path=str(path)), decoder, prompt_weight=0.1).finding("mask")
    assert whole is not None and whole.numbers["trained"] > mask.numbers["trained"]
    share = found.finding("tokens per character")
    assert share is not None and share.numbers["parts"] > 0 and share.numbers["tokens_per_character"] > 1


def test_lengths_and_unknown_tokens_of_an_encoder(encoder: ModelView, tmp_path: Path) -> None:
    assert encoder.template is None and encoder.context == 40
    some = [
        ("my card is lost", "card"),
        ("猫 を 好 き", "cat"),
        ("犬 は ☃ 好 き", "dog"),
        ("card " * 50, "card"),
    ]
    path = write_csv(tmp_path / "a.csv", [("question", "label"), *some])
    found = check_rows(Reading(path=str(path)), encoder)
    lengths = found.finding("lengths")
    assert lengths is not None and lengths.numbers["longest"] == 52 and lengths.numbers["median"] == 6
    beyond = found.finding("longer than the context")
    assert beyond is not None and beyond.level == "warning" and "their ends are not read" in beyond.what
    unknown = found.finding("unknown tokens")
    assert unknown is not None and unknown.rows[0]["found"] == "☃" and unknown.rows[0]["source"] == "a.csv:4"
    assert found.finding("mask") is None and found.labels == {"card": 2, "cat": 1, "dog": 1}


def test_rows_the_template_refuses_are_told(decoder: ModelView) -> None:
    talk = [{"role": "user", "content": "q"}]
    row = Example(id="a", form="messages", source="a.jsonl:3", fields={"messages": talk})
    examined = Examined(examples=[("train", row)], rows=1, tokenizer=decoder.tokenizer)
    from kogata.engine.chat import Renderer

    assert decoder.template is not None
    examined.renderer = Renderer(decoder.tokenizer, decoder.template)
    (fault,) = [finding for finding in run_checks(examined) if finding.check == "mask"]
    assert fault.level == "problem" and fault.rows[0]["source"] == "a.jsonl:3"
    assert fault.rows[0]["field"] == "messages[0].role" and fault.rows[0]["expected"] == "assistant"
