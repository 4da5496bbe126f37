"""SentencePiece's tokenizers in llama.cpp: the same ids, on lines half English and half Japanese."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from small_pieces import KINDS, LINES, made, model

from kogata.core.errors import DataError
from kogata.engine import gguf_run
from kogata.engine.export import _gguf
from kogata.engine.export._tokenizer import gguf_tokenizer
from kogata.engine.generate import generate
from kogata.engine.gguf_read import convert_gguf
from kogata.engine.load import load_model, load_tokenizer

PLAIN = ["a  b", "two\nlines\n\nthree\n", "タブ\tと　字下げ。", "x", "", "1234 cats, 45 mats!", "。」\n「"]
RARE = ["𠮷野家 and 👩‍👩‍👧", "नमस्ते العربية"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids(kind: str, tmp_path: Path) -> None:
    tokenizer = model(tmp_path / "model", made(kind))
    _gguf.write(tmp_path / "model", tmp_path / "m.gguf", "f32")
    texts = [*LINES, *PLAIN]
    own = [found.ids for found in tokenizer.encode_batch([*texts, *RARE], add_special_tokens=False)]
    found = gguf_run.tokenize(tmp_path / "m.gguf", [*texts, *RARE])
    for text, ours, theirs in zip(texts, own, found, strict=False):
        assert ours == theirs, text
    # llama.cpp's Unigram has no bytes: a rare character is one unknown token there.
    assert (own[-2:] == found[-2:]) == (not kind.startswith("unigram"))
    if kind.startswith("unigram"):
        assert all(0 in ids for ids in found[-2:]) and not any(0 in ids for ids in found[: len(texts)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_again(kind: str, tmp_path: Path) -> None:
    """The rebuilt tokenizer gives the ids of the one that was written, of rare characters too."""
    tokenizer = model(tmp_path / "model", made(kind))
    _gguf.write(tmp_path / "model", tmp_path / "m.gguf", "f32")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    again.encode_special_tokens = True
    for text in [*LINES, *PLAIN, *RARE]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert again.encode(text, add_special_tokens=False).ids == ids, text
    text = "猫 and a cat\nござに。"
    ids = again.encode(text, add_special_tokens=False).ids
    assert again.decode(ids) == text
    prompt = again.encode("The", add_special_tokens=False).ids
    places = [tmp_path / name for name in ("model", "again", "m.gguf")]
    wrote = [generate(load_model(place).decoder, prompt, 8) for place in places]
    assert wrote[0] == wrote[1] == wrote[2]


def test_what_llama_cpp_cannot_do_is_refused(tmp_path: Path) -> None:
    tokenizer = made("llama")
    cases = [
        ({"normalizer": {"type": "Lowercase"}}, "a normaliser Lowercase"),
        ({"normalizer": None}, "spaces that stay spaces"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "a split Whitespace"),
    ]
    for number, (changes, words) in enumerate(cases):
        folder = tmp_path / str(number)
        model(folder, tokenizer, **changes)
        with pytest.raises(DataError, match=words):
            gguf_tokenizer(folder, 2000, {})
    with pytest.raises(DataError, match="ids below the embedding's 10 rows"):
        model(tmp_path / "small", tokenizer)
        gguf_tokenizer(tmp_path / "small", 10, {})
