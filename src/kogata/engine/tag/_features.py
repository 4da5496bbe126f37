"""A unit and its neighbours as numbers: words, beginnings, endings, shapes, each a hash of its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from kogata.engine.classify._linear import SparseRows
from kogata.engine.tag._task import Row

MOST = 131_072
"""Features kept: the most frequent ones."""
FEW_UNITS = 2000
"""With fewer units than this a feature that occurs once is kept too."""
LONGEST_AFFIX = 4
_EDGE = "\0"
"""Stands for what lies before the first unit and behind the last."""


@dataclass(frozen=True)
class Features:
    """Which features count: their hashes, sorted, uint64 [features]."""

    keys: np.ndarray

    @staticmethod
    def learn(hashed: Sequence[np.ndarray]) -> Features:
        """Chooses features that occur twice at least, the most frequent first, ties by hash."""
        every = np.concatenate(hashed) if hashed else np.zeros(0, dtype=np.uint64)
        keys, counts = np.unique(every, return_counts=True)
        if len(hashed) >= FEW_UNITS:
            keys, counts = keys[counts > 1], counts[counts > 1]
        if len(keys) > MOST:
            keys = np.sort(keys[np.lexsort((keys, -counts))[:MOST]])
        return Features(keys)

    def rows(self, hashed: Sequence[np.ndarray]) -> SparseRows:
        """Gives units as rows of length 1."""
        sizes = np.array([len(one) for one in hashed], dtype=np.int64)
        every = np.concatenate(hashed) if hashed else np.zeros(0, dtype=np.uint64)
        owner = np.repeat(np.arange(len(hashed)), sizes)
        places = np.minimum(np.searchsorted(self.keys, every), max(0, len(self.keys) - 1))
        known = self.keys[places] == every if len(self.keys) else np.zeros(len(every), dtype=bool)
        owner, places = owner[known], places[known]
        counts = np.bincount(owner, minlength=len(hashed))
        values = (1 / np.sqrt(np.maximum(1, counts)))[owner].astype(np.float32)
        return SparseRows(np.concatenate([[0], np.cumsum(counts)]), places, values, len(self.keys))


def hashed_units(row: Row) -> list[np.ndarray]:
    """Gives each unit's features as hashes, uint64."""
    words = [unicodedata.normalize("NFKC", row.text[start:end]) for start, end in row.units]
    padded = [_EDGE] * 3 + words + [_EDGE] * 3
    low = [word.lower() for word in padded]
    shapes = [_shape(word) for word in padded]
    return [
        np.array(sorted({_hash(feature) for feature in _of(at, low, shapes)}), dtype=np.uint64)
        for at in range(3, 3 + len(words))
    ]


def _hash(feature: str) -> int:
    return xxhash.xxh64_intdigest(feature.encode("utf-8", "surrogatepass"))


def _of(at: int, low: list[str], shapes: list[str]) -> Iterator[str]:
    word = low[at]
    for away in range(-2, 3):
        yield f"w{away} {low[at + away]}"
        yield f"s{away} {shapes[at + away]}"
    for name, first, last in (
        ("a", -1, 0),
        ("b", 0, 1),
        ("c", -1, 1),
        ("d", -2, 0),
        ("e", 0, 2),
        ("f", -3, 0),
    ):
        yield f"{name} " + "\1".join(low[at + first : at + last + 1])
    for name, first, last in (("g", -1, 0), ("h", 0, 1), ("i", -1, 1), ("j", -2, 2)):
        yield f"{name} " + "\1".join(shapes[at + first : at + last + 1])
    for size in range(1, min(LONGEST_AFFIX, len(word) - 1) + 1):
        yield f"< {word[:size]}"
        yield f"> {word[-size:]}"


def _shape(word: str) -> str:
    """Writes what kinds of characters a word is made of, runs as one: `Xx`, `d`, `K` kanji, `H`, `T` kana."""
    if word == _EDGE:
        return word
    found = []
    for character in word:
        kind = _kind(character)
        if not found or found[-1] != kind:
            found.append(kind)
    # Four letters in a year, two in a day: how long a run of digits is tells them apart.
    return "".join(found) + (str(min(5, len(word))) if found == ["d"] else "")


def _kind(character: str) -> str:
    if character.isdigit():
        return "d"
    if "ぁ" <= character <= "ゟ":
        return "H"
    if "゠" <= character <= "ヿ":
        return "T"
    if "㐀" <= character <= "鿿":
        return "K"
    if character.isalpha():
        return "X" if character.isupper() else "x"
    return character
