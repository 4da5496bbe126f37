"""Units and runs: one number per word or character, the same whatever stands around and beside them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest

from kogata.engine import ngrams
from kogata.engine.ngrams import runs_of, units_of

TEXTS = [
    "The kettle sang, on the HOB: the kettle.",
    "",
    "吾輩は猫である。名前はまだ無い。",
    "Tokyo 東京 tower３ ｶﾅ",
    "...",
    "มานี café e\u0301te\u0301 naïve",
    "𠮷野家 and 😀 end",
]
ALONE = re.compile("[ぁ-ヿ一-鿿々\U00020000-\U0002ffff\u0e00-\u0e7f]")


def plain_units(text: str) -> list[str]:
    """Cuts a text into words and lone characters the slow way."""
    text = unicodedata.normalize("NFKC", text).lower()
    found, word = [], ""
    for char in text:
        part = char.isalnum() or unicodedata.category(char)[0] == "M"
        if part and not ALONE.match(char):
            word += char
            continue
        found += [word] if word else []
        word = ""
        found += [char] if part else []
    return found + ([word] if word else [])


def test_units_are_the_words_and_the_lone_characters() -> None:
    units, bounds = units_of(TEXTS)
    names: dict[int, str] = {}
    for at, text in enumerate(TEXTS):
        wanted = plain_units(text)
        found = units[bounds[at] : bounds[at + 1]].tolist()
        assert len(found) == len(wanted), text
        for number, word in zip(found, wanted, strict=True):
            assert names.setdefault(number, word) == word
    assert len(set(names.values())) == len(names)


def test_a_text_has_the_same_units_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    units, bounds = units_of(TEXTS * 3)
    for at, text in enumerate(TEXTS * 3):
        alone, _ = units_of([text])
        assert alone.tolist() == units[bounds[at] : bounds[at + 1]].tolist()
    long = "one two three, four 東京タワー five. " * 40
    whole, _ = units_of([long])
    monkeypatch.setattr(ngrams, "_PIECE", 64)
    cut, bounds = units_of(["before", long, "after"])
    assert cut[bounds[1] : bounds[2]].tolist() == whole.tolist()


def test_numbers_do_not_change_between_versions() -> None:
    units, _ = units_of(["the 猫"])
    assert [f"{number:016x}" for number in units.tolist()] == NUMBERS


NUMBERS = ["f0e0f33ba7a705cd", "12a770ee933d37fa"]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_runs_are_equal_where_their_units_are(length: int) -> None:
    texts = ["a b c d e f", "a b c d e g", "b c", "", "b c", "c b", "x a b c d e"]
    runs, bounds = runs_of(*units_of(texts), length)
    names: dict[int, tuple[str, ...]] = {}
    for at, text in enumerate(texts):
        words = text.split()
        wanted = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
        wanted = wanted or ([tuple(words)] if words else [])
        found = runs[bounds[at] : bounds[at + 1]].tolist()
        assert len(found) == len(wanted)
        for number, run in zip(found, wanted, strict=True):
            assert names.setdefault(number, run) == run
    assert len(set(names.values())) == len(names)


def test_words_of_a_large_vocabulary_do_not_collide() -> None:
    words = [f"{a}{b}" for a in range(300) for b in "abcdefghij"] + [chr(0x4E00 + i) for i in range(5000)]
    units, _ = units_of([" ".join(words)])
    assert len(np.unique(units)) == len(words)
