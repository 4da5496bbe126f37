"""The general text: bundled in the rows' language, measured as bits per byte, the same before and after."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from finetune_bench import write_examples
from small_models import small_spec, write_small_model

from kogata.engine.evaluate import bits_per_byte, encode_documents, encoder
from kogata.engine.general import GeneralText, language_of, passages, said
from kogata.engine.load import load_tokenizer
from kogata.engine.text import language_hint
from kogata.nn.packed import PackedHidden


@pytest.mark.parametrize("language", ["en", "ja", "zh", "ko", "ru", "de", "fr", "es", "it", "pt", "nl"])
def test_passages_are_of_their_language(language: str) -> None:
    found = passages(language)
    assert len(found) == (4 if language in ("en", "ja") else 1)
    assert all(language_hint(text) == language and len(text.encode()) > 500 for text in found)
    assert not passages("xx")


def test_the_language_is_that_of_the_rows(tmp_path: Path) -> None:
    japanese = [{"prompt": f"{n}番の荷物はどこですか。", "completion": "配送中です。"} for n in range(8)]
    assert language_of(write_examples(tmp_path / "ja", japanese).path) == "ja"
    english = [
        {"prompt": f"Where is the parcel {n}?", "completion": "It is on the way to you."} for n in "abc"
    ]
    assert language_of(write_examples(tmp_path / "en", english, heldout=0).path) == "en"
    words = [{"prompt": "card lost?", "completion": "urgent"}]
    assert language_of(write_examples(tmp_path / "words", words, heldout=0).path) == "en"
    assert language_of(write_examples(tmp_path / "mixed").path) == "ja"


@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_is_the_measure_of_evaluate(tmp_path: Path, language: str) -> None:
    torch.set_num_threads(1)
    decoder = write_small_model(tmp_path, small_spec(context=64))
    general = GeneralText(language, load_tokenizer(tmp_path), 0, 64)
    texts = passages(language)[: general.texts]
    wanted = bits_per_byte(decoder, encode_documents(encoder(tmp_path), texts), end_id=0, window=64)
    packed = PackedHidden(decoder, None)
    general.begin(packed, 512)
    assert general.before == pytest.approx(wanted.value, rel=1e-5) and general.bytes == wanted.bytes
    with torch.no_grad():
        decoder.norm.weight.mul_(0.0)
    after = general.end(packed, 512)
    assert after["bits_per_byte_before"] == pytest.approx(wanted.value, abs=1e-5)
    # A model that knows nothing gives every token of 320 the same chance.
    assert after["bits_per_byte"] == pytest.approx(wanted.tokens * math.log2(320) / wanted.bytes, rel=1e-4)


def test_what_is_forgotten_is_said() -> None:
    found = {"language": "ja", "bits_per_byte_before": 1.0, "bits_per_byte": 1.02}
    assert len(list(said(found))) == 1
    lines = list(said(found | {"bits_per_byte": 1.2}))
    assert "1.000 bits per byte before, 1.200 after" in lines[0] and lines[1].startswith("20% of general")
