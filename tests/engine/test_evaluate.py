"""Bits per byte and minimal pairs against what they are by definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from small_models import random_decoder, small_spec, write_small_model

from kogata.core.errors import DataError
from kogata.engine import evaluate, minimal_pairs
from kogata.engine.load import load_model

TEXTS = ["The cat sat on the mat. " * 9, "猫が海辺のござに座った。" * 7, "a", "Short, then. "]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write_small_model(place, small_spec("qwen3"))
    return place


def plain_loss(model, ids: list[int], end_id: int, window: int) -> float:
    """The definition, one window at a time."""
    whole, total = [end_id, *ids], 0.0
    for start in range(0, len(ids), window):
        inputs = torch.tensor([whole[start : start + window]])
        targets = whole[start + 1 : start + window + 1]
        with torch.no_grad():
            odds = model(inputs)[0].double().log_softmax(-1)
        total -= sum(float(odds[at, token]) for at, token in enumerate(targets))
    return total


@pytest.mark.parametrize("window", [16, 64])
def test_equals_the_definition(folder: Path, window: int) -> None:
    loaded = load_model(folder)
    encode = evaluate.encoder(folder)
    found = evaluate.bits_per_byte(
        loaded.decoder, evaluate.encode_documents(encode, TEXTS), end_id=0, window=window
    )
    ids = encode(TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    loss = sum(plain_loss(loaded.decoder, row, 0, window) for row in ids)
    assert found.value == pytest.approx(loss / math.log(2) / size, rel=1e-5)
    assert (found.documents, found.bytes, found.tokens) == (4, size, sum(map(len, ids)))
    assert found.loss_nats_per_token == pytest.approx(loss / found.tokens, rel=1e-5)
    assert found.window == window


def test_every_token_is_asked_for_once_and_none_sees_another_window() -> None:
    for length in (1, 3, 4, 5, 8, 9):
        ids = list(range(1, length + 1))
        pieces = list(evaluate.cut(ids, 0, 4))
        assert [token for _, targets in pieces for token in targets] == ids
        assert all(len(inputs) == len(targets) <= 4 for inputs, targets in pieces)
        assert pieces[0][0][0] == 0


def test_transformers_own_model_gives_the_same(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").train()
    documents = list(evaluate.encode_documents(evaluate.encoder(folder), TEXTS))
    ours = evaluate.bits_per_byte(load_model(folder).decoder, documents, end_id=0, window=32)
    found = evaluate.bits_per_byte(theirs, documents, end_id=0, window=32)
    assert found.value == pytest.approx(ours.value, rel=1e-5)
    assert theirs.training, "the mode is put back"


def test_is_the_same_every_time_and_for_any_batch() -> None:
    decoder = random_decoder(small_spec())
    pieces = [piece for n in (3, 40, 40, 17, 64) for piece in evaluate.cut(list(range(1, n)), 0, 32)]
    first = evaluate.token_losses(decoder, pieces)
    assert first == evaluate.token_losses(decoder, pieces)
    for batch_tokens in (1, 50, 100_000):
        again = evaluate.token_losses(decoder, pieces, batch_tokens=batch_tokens)
        for a, b in zip(first, again, strict=True):
            assert a == pytest.approx(b, abs=2e-5)


def test_a_special_token_written_in_text_is_text(folder: Path) -> None:
    ids = evaluate.encoder(folder)(["<|endoftext|>"])[0]
    assert 0 not in ids and len(ids) > 3


def test_no_text_is_an_error() -> None:
    with pytest.raises(DataError, match="no text to score"):
        evaluate.bits_per_byte(random_decoder(small_spec()), [], end_id=0, window=8)


def test_sample_is_chosen_by_content_alone() -> None:
    texts = [f"{n} 文書 {'x' * (n * 37 % 400)}" for n in range(60)]
    chosen, total = evaluate.sample_texts(texts, 3000)
    size = sum(len(text.encode()) for text in chosen)
    assert 2900 < size <= 3000 and total == sum(len(text.encode()) for text in texts)
    turned, _ = evaluate.sample_texts(reversed(texts), 3000)
    assert sorted(turned) == sorted(chosen)
    long, _ = evaluate.sample_texts(["長い本。" * 1000, "another " * 1000], 999)
    assert 990 <= sum(len(text.encode()) for text in long) <= 999, "a few long documents are cut"
    assert all("\ufffd" not in text for text in long)
    assert evaluate.sample_texts(texts, None)[0] == texts


def test_default_window_and_prompts() -> None:
    assert [evaluate.default_window(c) for c in (64, 256, 2048, None)] == [64, 256, 256, 256]
    assert "ある" in evaluate.default_prompts(["今日は天気がよいので、散歩に行った。"])[0]
    assert evaluate.default_prompts(["The old house was by the sea and it was empty."])[0].startswith("The")
    assert evaluate.default_prompts(["Дом стоял у моря, и никто не жил в нём."]) == [
        "Дом стоял у моря, и никт"
    ]


def test_pairs_by_summed_probability(folder: Path) -> None:
    loaded, encode = load_model(folder), evaluate.encoder(folder)
    pairs = [
        minimal_pairs.Pair(paradigm=name, good=good, bad=bad)
        for name, good, bad in (
            ("a", "The cat sat.", "The cat sit."),
            ("a", "The mat by the sea.", "The mat sea by the sea the."),
            ("b", "猫が座った。", "猫を座った。"),
        )
    ]
    found = minimal_pairs.judge(loaded.decoder, encode, pairs, end_id=0)
    right = [
        plain_loss(loaded.decoder, encode([pair.good])[0], 0, 999)
        < plain_loss(loaded.decoder, encode([pair.bad])[0], 0, 999)
        for pair in pairs
    ]
    p = sum(right) / 3
    assert found.accuracy == pytest.approx(p) and found.n == 3
    assert found.standard_error == pytest.approx(math.sqrt(p * (1 - p) / 3))
    assert found.by_paradigm["a"]["n"] == 2 and found.by_paradigm["b"]["accuracy"] == right[2]
    same = minimal_pairs.judge(
        loaded.decoder, encode, [minimal_pairs.Pair(paradigm="a", good="x", bad="x")], end_id=0
    )
    assert same.accuracy == 0, "a tie is wrong"


def test_bundled_pairs() -> None:
    pairs = minimal_pairs.bundled_pairs()
    names = {pair.paradigm for pair in pairs}
    assert len(pairs) == 850 and len(names) == 34
    assert all(pair.good != pair.bad for pair in pairs)
    notice = (Path(minimal_pairs.__file__).parents[1] / "data" / "NOTICE").read_text(encoding="utf-8")
    assert "CC BY 4.0" in notice and "Warstadt" in notice


def test_own_pairs_and_their_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"good": "猫が座る。", "bad": "猫を座る。"},
        {"sentence_good": "a", "sentence_bad": "b", "UID": "u"},
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert [pair.paradigm for pair in minimal_pairs.read_pairs(path)] == ["all", "u"]
    path.write_text('{"good": "a", "bad": "b"}\n{"good": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 2"):
        minimal_pairs.read_pairs(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no minimal pairs"):
        minimal_pairs.read_pairs(path)
    with pytest.raises(DataError, match="cannot be read"):
        minimal_pairs.read_pairs(tmp_path / "none.jsonl")
