"""Families of rules: each takes what it is for, with rule and value, and leaves prose, Japanese too."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from web_archives import JAPANESE, PROSE

from kogata.core.artifact import Document
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine.filters._view import View
from kogata.stages.data import filter as stage_of_filters
from kogata.stages.data.filter import Filter

LONG = (
    "The harbour lies under the hill, and the boats come home with the tide when the lamps are lit. "
    "Nobody in the town would have said that the old pilot was afraid of the sea, yet he was. "
    "He had learnt to hide it as other men hide their debts, by talking of it loudly and often! "
    "That night the wind went round to the north, and the bar could not be crossed before morning. "
    "His daughter set the kettle on the fire and asked him what he meant to do about the schooner. "
)
LONG_JAPANESE = (
    "道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、雨脚が杉の密林を白く染めながら来た。"
    "私は二十歳、高等学校の制帽をかぶり、紺飛白の着物に袴をはき、学生カバンを肩にかけていた。"
    "一人伊豆の旅に出てから四日目のことだった。修善寺温泉に一夜泊り、湯ヶ島温泉に二夜泊った。"
    "そして朴歯の高下駄で天城を登って来たのだった。重なり合った山々や原生林や深い渓谷の秋に見惚れた。"
    "折れ曲った急な坂道を駈け登り、ようやく峠の北口の茶屋に辿りついてほっとした。"
)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "data"
WEB = ["gopher_quality", "gopher_repetition", "c4", "fineweb"]
ASIDES = "\n".join(
    f"Item number {n}: see also the page of {n} and its notes for the rest." for n in range(30)
)


def run(rules: Any, texts: list[str | Document], **settings: Any) -> tuple[list[Document], Account]:
    own = dict.fromkeys(("max_symbols", "max_repeated_lines", "max_repeated_paragraphs", "max_top_ngram"))
    own |= dict.fromkeys(("max_repeated_ngrams", "min_characters", "min_word_length", "max_word_length"))
    stage = Filter.model_validate({**own, "rules": rules, **settings})
    account = Account()
    given = [text if isinstance(text, Document) else Document(str(at), text) for at, text in enumerate(texts)]
    return list(stage.each([*given, Document("good", LONG)], account)), account


def verdict(rules: Any, text: str | Document) -> tuple[str | None, Any]:
    kept, account = run(rules, [text])
    assert kept[-1].id == "good", account.reasons
    if len(kept) == 2:
        return None, None
    (reason,) = account.reasons
    return reason, account.examples[reason][0]["value"]


@pytest.mark.parametrize("text", [LONG, LONG_JAPANESE])
def test_prose_meets_all_the_rules_for_the_web(text: str) -> None:
    assert verdict(WEB, text) == (None, None)


@pytest.mark.parametrize(
    ("family", "text", "reason", "value"),
    [
        ("gopher_quality", "Far too short to be of use to the one that reads it.", "min_words 50", 13),
        ("gopher_quality", JAPANESE[:60], "min_characters 100", 60),
        ("gopher_quality", LONG * 1500, "max_words 100000", None),
        ("gopher_quality", "the cat and a to of be in is it of an " * 6, "min_word_length 3", None),
        ("gopher_quality", "the transcontinental administrations " * 20, "max_word_length 10", None),
        ("gopher_quality", LONG + " #one #two #three" * 4, "max_hashes 0.1", None),
        ("gopher_quality", LONG_JAPANESE + "#猫" * 60, "max_hashes 0.1", None),
        ("gopher_quality", LONG + " and so… " * 20, "max_ellipses 0.1", None),
        ("gopher_quality", LONG.replace(". ", "…\n"), "max_ellipsis_lines 0.3", None),
        ("gopher_quality", "\n".join(f"• {line}" for line in LONG.split(". ")), "max_bullet_lines 0.9", 1.0),
        ("gopher_quality", LONG_JAPANESE.replace("。", "。\n・")[:-2], "max_bullet_lines 0.7", None),
        ("gopher_quality", LONG + " 12 345 6.7" * 12, "min_lettered_words 0.8", None),
        ("gopher_quality", Document("x", "Cheap shoes boots sandals sale discount outlet store brand " * 8,
                                    meta={"language": "en"}), "min_stop_words 2", 0),
        ("gopher_repetition", "Buy now.\n" * 3 + LONG.replace(". ", ".\n"), None, None),
        ("gopher_repetition", "Read more\n" * 5 + LONG.replace(". ", ".\n"), "max_repeated_lines 0.3", 0.44),
        ("gopher_repetition", "a paragraph\n\n" * 4 + ASIDES, "max_repeated_paragraphs 0.3", 0.6),
        ("gopher_repetition", (LONG[:90] + "\n") * 2 + "One more.\nTwo of them.\nAnd a third line.",
         "max_repeated_line_characters 0.2", None),
        ("gopher_repetition", LONG + "shoe sale " * 40, "max_top_2gram 0.2", None),
        ("gopher_repetition", LONG_JAPANESE + "激安通販" * 40, "max_top_2gram 0.2", None),
        ("gopher_repetition", LONG + LONG, "max_repeated_5grams 0.15", 0.5),
        ("gopher_repetition", LONG_JAPANESE + LONG_JAPANESE, "max_repeated_5grams 0.15", 0.5),
        ("c4", LONG + "\nif (a) { return b; }", "braces", 1),
        ("c4", LONG + "\nLorem ipsum dolor sit amet, they wrote.", "filler", 1),
        ("c4", "One sentence is here. And a second one is here too.", "min_sentences 5", 2),
        ("c4", JAPANESE, "min_sentences 5", 2),
        ("c4", "Use of cookies on this page\nYour privacy policy\nTwo words", "phrases", "all of 3 lines"),
        ("fineweb", ASIDES.replace(".", ""), "min_ended_lines 0.12", 0.0),
        ("fineweb", LONG + "\nHome\nNews\nAbout us.\nShop\nTerms\nJobs", "max_short_lines 0.67", None),
        ("fineweb", LONG.replace(". ", ".\n") + "Nobody in the town at all.\n" * 3,
         "max_repeated_line_characters 0.01", None),
        ("fineweb", "\n".join(f"It {n} ended here by the old sea side wall." for n in range(20)) + "\n" * 80,
         "max_lines_per_word 0.3", None),
    ],
)  # fmt: skip
def test_each_rule_takes_what_it_is_for(
    family: str, text: str | Document, reason: str | None, value: Any
) -> None:
    settings: Any = [family]
    if reason == "max_bullet_lines 0.7":
        settings = {family: {"max_bullet_lines": 0.7}}
    found = verdict(settings, text)
    assert found[0] == (f"{family}.{reason}" if reason else None), found
    if value is not None:
        assert found[1] == (value if isinstance(value, str) else pytest.approx(value, abs=0.03))


def test_a_rule_set_to_null_is_not_in_force() -> None:
    text = "Far too short to be of use to the one that reads it."
    assert verdict({"gopher_quality": {"min_words": None}}, text) == (None, None)
    assert verdict({"c4": {"min_sentences": None, "phrases": [], "min_words_per_line": 0}}, text)[0] is None


def test_c4_takes_lines_out_and_leaves_the_rest_and_the_held_out() -> None:
    lines = [*LONG.strip().split("\n"), "Home", "We use cookies on this page of ours.", "Not ended"]
    japanese = LONG_JAPANESE + "\nホーム\nこのサイトの利用規約はこちら"
    held = Document("held", "\n".join(lines), "heldout")
    kept, account = run(["c4"], ["\n".join(lines), japanese, held])
    assert kept[0].text == LONG.strip() and kept[1].text == LONG_JAPANESE + "\nホーム" and kept[2] == held
    gone = account.extra["lines_taken_out"]
    assert gone == {"c4.min_words_per_line 3": 2, "c4.phrases": 2}
    kept, account = run({"c4": {"min_words_per_line": 0, "ended_lines": True}}, ["\n".join(lines)])
    assert kept[0].text == LONG.strip() and account.extra["lines_taken_out"]["c4.ended_lines"] == 2


def test_language_believes_the_meta_and_identifies_the_rest() -> None:
    pytest.importorskip("py3langid")
    rules = {"language": {"keep": ["en", "ja"]}}
    said = Document("said", LONG, meta={"language": "fr", "language_confidence": 0.9})
    unsure = Document("unsure", LONG, meta={"language": "en", "language_confidence": 0.4})
    german = "Alle Menschen sind frei und gleich an Würde und Rechten geboren und mit Vernunft begabt."
    kept, account = run(rules, [LONG_JAPANESE, german, said, unsure])
    assert [document.id for document in kept] == ["0", "good"]
    (reason,) = account.reasons
    values = [row["value"] for row in account.examples[reason]]
    assert reason == "language.keep en ja" and values[1:] == ["fr 0.90", "en 0.40"] and values[0][:2] == "de"
    with pytest.raises(RecipeError, match="did you mean 'ja'"):
        Filter.model_validate({"rules": {"language": {"keep": ["jp"]}}})


# Against evaluation sets


@pytest.fixture
def tests_of(tmp_path: Path) -> str:
    rows = [
        {"question": "What did " + LONG[200:330] + "?"},
        {"question": "答えなさい：" + LONG_JAPANESE[60:100]},
        {"question": "Who asked him what he meant to do about the schooner"},
        {"question": "the town would have said"},
    ]
    path = tmp_path / "評価.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_what_shares_a_run_with_an_evaluation_set_goes(tests_of: str) -> None:
    rules = {"decontaminate": {"against": tests_of, "column": "question"}}
    texts = [
        "Before it. " + LONG[200:330].upper().replace(",", " —") + " After it.",
        "前文。" + LONG_JAPANESE[60:100].replace("、", " ") + "後文。",
        "And who asked him: WHO ASKED HIM WHAT HE MEANT TO DO ABOUT THE SCHOONER, they said.",
        "Nobody in the town would have said so, and the old pilot said nothing of it to anyone else.",
        LONG_JAPANESE[60:80] + "しかしこれは別の話である。",
    ]
    account = Account()
    given = [Document(str(at), text) for at, text in enumerate(texts)]
    held = Document("held", texts[0], "test")
    kept = list(Filter.model_validate({"rules": rules}).each([held, *given], account))
    assert [document.id for document in kept] == ["held", "3", "4"]
    assert account.reasons == {"decontaminate.max_runs 0": 3}


def test_evaluation_sets_that_cannot_be_read_say_where(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    path.write_text('{"first": "' + LONG + '", "second": "' + PROSE + '"}\n', encoding="utf-8")
    with pytest.raises(DataError) as error:
        run({"decontaminate": {"against": str(path)}}, [LONG])
    assert "data.filter.rules.decontaminate.against" in str(error.value) and "column: NAME" in str(
        error.value
    )
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="without any text"):
        run({"decontaminate": {"against": str(tmp_path / "empty.txt")}}, [LONG])


# Learned from the corpus


def prose(number: int, source: str = LONG) -> str:
    """Draws words of a text, or its characters."""
    chance = random.Random(number)
    words = source.split() if " " in source else list(source)
    return (" " if " " in source else "").join(chance.choice(words) for _ in range(120))


def junk(number: int, source: str = LONG) -> str:
    """Draws words that nobody uses, or characters of which most are rare."""
    chance = random.Random(number)
    marks = [f"{chance.randrange(10**9):x}" for _ in range(100)]
    return " ".join(marks) if " " in source else "".join(chr(chance.randrange(0x4E00, 0x9FA0)) for _ in marks)


@pytest.mark.parametrize("source", [LONG, LONG_JAPANESE])
def test_prior_takes_what_is_odd_for_its_language(source: str) -> None:
    meta = {"language": "en" if source is LONG else "ja"}
    good = [Document(f"good{at}", prose(at, source), meta=meta) for at in range(80)]
    bad = [Document(f"bad{at}", junk(at, source), meta=meta) for at in range(20)]
    account = Account()
    stage = Filter.model_validate({"rules": {"prior": {"keep": 0.8}}})
    given = [Document("held", bad[0].text, "heldout"), *bad, *good]
    kept = list(stage.each(given, account))
    assert len(kept) == 81 and not [document for document in kept[1:] if document.id.startswith("bad")]
    assert account.reasons == {"prior.keep 0.8": 20}
    assert account.extra["learned_from"]["prior"]["documents"] == 100


def test_classifier_keeps_what_is_like_the_named_texts(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("\n\n".join(prose(at) for at in range(1000, 1100)), encoding="utf-8")
    other = "Rates of interest were raised by the bank as shares fell in early trading on the exchange again."
    good = [Document(f"good{at}", prose(at)) for at in range(30)]
    bad = [Document(f"bad{at}", prose(at, other)) for at in range(70)]
    rules = {"classifier": {"positives": str(tmp_path / "good.txt"), "keep": 0.3}}
    account = Account()
    kept = list(Filter.model_validate({"rules": rules}).each([*bad, *good], account))
    assert len(kept) == 30 and sum(document.id.startswith("good") for document in kept) >= 29
    assert account.reasons == {"classifier.keep 0.3": 70}
    again = list(Filter.model_validate({"rules": rules}).each([*bad, *good], Account()))
    assert again == kept
    (tmp_path / "few.txt").write_text("One text.")
    with pytest.raises(DataError, match="too little text"):
        rules = {"classifier": {"positives": str(tmp_path / "few.txt")}}
        list(Filter.model_validate({"rules": rules}).each([*bad, *good], Account()))


SHOP = (
    "Add to cart|In stock, ships in 24 hours|Free shipping on orders over $50|Sign in to see your price|"
    "Customers also bought|Best seller|Size: S M L XL|Color: black|4.5 out of 5 stars|See all reviews|"
    "Copyright 2019 All rights reserved|Follow us on Twitter|Share this page|Next page|Buy 2 get 1 free"
).split("|")
MISE = (
    "カートに入れる|送料無料|在庫あり|会員登録はこちら|ログイン|お気に入りに追加|ポイント10倍|ランキング1位|"
    "レビューを見る|商品番号|税込価格|前のページへ|次のページへ|特定商取引法の表示"
).split("|")


def packed(name: str) -> str:
    return gzip.decompress((EXAMPLES / name).read_bytes()).decode()


def test_classifier_has_edited_texts_of_its_own_for_english_and_japanese() -> None:
    chance = random.Random(5)
    novel = packed("novels-heldout/Trollope_Warden_1855.txt.gz")
    works = [json.loads(work) for work in packed("aozora-heldout/works.jsonl.gz").split("\n") if work]
    stories = "".join(work["text"] for work in works)
    good = [Document(f"good{at}", novel[at * 4000 : at * 4000 + 2500]) for at in range(80)]
    good += [Document(f"good{80 + at}", stories[at * 1700 : at * 1700 + 1200]) for at in range(30)]
    bad = [Document(f"bad{at}", "\n".join(chance.choices(SHOP, k=60))) for at in range(80)]
    bad += [Document(f"bad{at}", "\n".join(chance.choices(MISE, k=100))) for at in range(80, 110)]
    german = "Alle Menschen sind frei und gleich an Würde und Rechten geboren und mit Vernunft begabt. "
    others = [Document(f"de{at}", german * 20) for at in range(5)]
    account = Account()
    stage = Filter.model_validate(
        {"rules": {"classifier": {"keep": 0.5}}, "max_top_ngram": None, "max_repeated_ngrams": None,
         "max_repeated_lines": None, "max_symbols": None}
    )  # fmt: skip
    kept = {document.id for document in stage.each([*bad, *good, *others], account)}
    assert account.reasons == {"classifier.keep 0.5": 110}, "what is in another language is not judged"
    assert sum(name.startswith("good") for name in kept) >= 107 and len(kept) == 115
    with pytest.raises(DataError, match="no edited texts for the languages"):
        list(stage.each(others * 10, Account()))


def test_learning_waits_for_training_text_and_judges_what_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage_of_filters, "SAMPLE_BYTES", 30_000)
    held = [Document(f"held{at}", prose(at) * 20, "heldout") for at in range(5)]
    train = [Document(f"a{at}", prose(at), meta={"language": "en"}) for at in range(90)]
    late = [Document(f"late{at}", junk(at), meta={"language": "en"}) for at in range(5)]
    account = Account()
    kept = list(Filter.model_validate({"rules": ["prior"]}).each([*held, *train, *late], account))
    assert kept[:5] == held
    learned = account.extra["learned_from"]["prior"]
    assert 30 <= learned["documents"] < 90 and learned["bytes"] >= 30_000
    assert not [document for document in kept if document.id.startswith("late")]


# What the rules measure by


def test_repeats_are_those_found_the_slow_way() -> None:
    chance = random.Random(1)
    text = " ".join(chance.choice("abcde") for _ in range(300))
    view = View(text)
    words = text.split()
    for length in (2, 4, 3, 7):
        found = view.repeats(length)
        runs = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
        again = [at for at, run in enumerate(runs) if runs.count(run) > 1]
        assert sorted(found.starts.tolist()) == again
        firsts = sorted(found.starts[found.first].tolist())
        assert firsts == [at for at in again if runs.index(runs[at]) == at]
        assert len(np.unique(found.groups)) == len(firsts)


def test_a_latin_name_in_a_text_without_spaces_is_one_unit() -> None:
    text = "設定は /etc/network/interfaces に書く。設定は /etc/network/interfaces を読む。"
    view = View(text)
    assert not view.spaced
    pieces = [*"設定は", "/etc/network/interfaces", *"に書く。設定は", "/etc/network/interfaces", *"を読む。"]
    assert np.diff(view.unit_ends).tolist() == [len(piece) for piece in pieces]
    numbers: dict[str, int] = {}
    same = [numbers.setdefault(piece, int(unit)) for piece, unit in zip(pieces, view.units, strict=True)]
    assert same == view.units.tolist() and len(set(view.units.tolist())) == len(set(pieces))
    assert view.unit_ends[-1] == view.visible
    found = view.repeats(4)
    assert sorted(found.starts.tolist()) == [0, 8]
    empty = View("、" * 0 + "　")
    assert not len(empty.units) and empty.unit_ends.tolist() == [0]


def test_a_manual_that_names_the_same_files_is_not_taken_for_repetition() -> None:
    """Sentences of their own about the same files: repetition is in what is said, not in names."""
    chance = random.Random(3)
    kana = [chr(code) for code in range(ord("あ"), ord("ん"))]
    names = ["/etc/network/interfaces", "systemd-networkd", "NetworkManager"]
    said = ["".join(chance.choices(kana, k=24)) + f" {chance.choice(names)} " for _ in range(60)]
    assert verdict(["gopher_repetition"], "。".join(said)) == (None, None)
    again = "。".join(said[:20] * 3)
    assert verdict(["gopher_repetition"], again)[0] == "gopher_repetition.max_repeated_5grams 0.15"


def test_families_are_named_in_a_list_or_with_settings() -> None:
    made = Filter.model_validate({"rules": {"c4": None, "fineweb": {"short_line": 20}, "prior": False}})
    assert made.rules is not None and set(made.rules.chosen) == {"c4", "fineweb"}
    assert Filter.model_validate(made.model_dump(mode="json")) == made
    assert Filter.model_validate({"rules": "c4"}) == Filter.model_validate({"rules": ["c4"]})
    with pytest.raises(ValidationError, match="did you mean 'gopher_quality'"):
        Filter.model_validate({"rules": ["gopher_qualty"]})
    facts = {"corpus": {"splits": {"train": {"bytes": 10**8}}}}
    plain, web = (
        Filter.model_validate({"rules": rules}).forecast(facts, Machine(), Share()) for rules in (None, WEB)
    )
    assert (web.cost.seconds or 0) > 1.5 * (plain.cost.seconds or 0)
