"""Character n-grams as numbers: each is a 64-bit hash of its characters, so no list of strings is kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kogata.engine.classify._linear import SparseRows

CHUNK = 1 << 21
"""Characters worked on at a time."""
MOST = 65_536
"""N-grams kept: those in the most texts."""
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Grams:
    """Which n-grams count, and how much.

    Attributes:
        shortest, longest: characters of an n-gram.
        keys: their hashes, sorted, uint64 [features].
        weights: their inverse document frequency, float32 [features].
    """

    shortest: int
    longest: int
    keys: np.ndarray
    weights: np.ndarray

    @staticmethod
    def learn(texts: Sequence[str], shortest: int, longest: int) -> Grams:
        """Chooses the n-grams that occur in two texts at least, the most frequent first, ties by hash."""
        keys = np.zeros(0, dtype=np.uint64)
        counts = np.zeros(0, dtype=np.int64)
        for some in _chunks(texts):
            _, found, _ = _count(some, shortest, longest)
            both, places = np.unique(np.concatenate([keys, found]), return_inverse=True)
            added = np.concatenate([counts, np.ones(len(found), dtype=np.int64)])
            keys, counts = both, np.bincount(places, added, len(both)).astype(np.int64)
        kept = counts >= min(2, len(texts))
        if not kept.any():
            kept[:] = True
        keys, counts = keys[kept], counts[kept]
        if len(keys) > MOST:
            best = np.sort(np.lexsort((keys, -counts))[:MOST])
            keys, counts = keys[best], counts[best]
        weights = np.log((1 + len(texts)) / (1 + counts)) + 1
        return Grams(shortest, longest, keys, weights.astype(np.float32))

    def rows(self, texts: Sequence[str]) -> SparseRows:
        """Gives texts as rows of length 1: (1 + log count) · inverse document frequency."""
        starts, columns, values, done = [np.zeros(1, dtype=np.int64)], [], [], 0
        for some in _chunks(texts):
            text, keys, counts = _count(some, self.shortest, self.longest)
            places = np.minimum(np.searchsorted(self.keys, keys), max(0, len(self.keys) - 1))
            known = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), dtype=bool)
            text, places = text[known], places[known]
            value = (1 + np.log(counts[known])) * self.weights[places]
            length = np.sqrt(np.bincount(text, value * value, len(some)))
            value = value / np.maximum(length, 1e-12)[text]
            starts.append(done + np.cumsum(np.bincount(text, minlength=len(some))))
            done += len(text)
            columns.append(places)
            values.append(value.astype(np.float32))
        if not columns:
            return SparseRows(starts[0], np.zeros(0, np.int64), np.zeros(0, np.float32), len(self.keys))
        return SparseRows(
            np.concatenate(starts), np.concatenate(columns), np.concatenate(values), len(self.keys)
        )


def plain(text: str) -> str:
    """Gives a text in one form: width and case folded, white space as one blank, one at each end."""
    return f" {_SPACES.sub(' ', unicodedata.normalize('NFKC', text).casefold()).strip()} "


def _chunks(texts: Sequence[str]):
    start, size = 0, 0
    for at, text in enumerate(texts):
        size += len(text) + 2
        if size >= CHUNK:
            yield texts[start : at + 1]
            start, size = at + 1, 0
    if start < len(texts):
        yield texts[start:]


def _count(texts: Sequence[str], shortest: int, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts n-grams: (text, hash, count) of each that occurs, by text and hash."""
    folded = [plain(text) for text in texts]
    letters = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in folded])
    rows, keys = [], []
    with np.errstate(over="ignore"):
        rolled = np.zeros(len(letters), dtype=np.uint64)
        for n in range(1, longest + 1):
            size = len(letters) - n + 1
            if size <= 0:
                break
            rolled = rolled[:size] * np.uint64(0x100000001B3) + letters[n - 1 :].astype(np.uint64)
            if n < shortest:
                continue
            whole = owner[:size] == owner[n - 1 :]
            rows.append(owner[:size][whole])
            keys.append(_scramble(rolled[whole] + np.uint64(n) * np.uint64(0x9E3779B97F4A7C15)))
    if not keys:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    text, key = np.concatenate(rows), np.concatenate(keys)
    order = np.lexsort((key, text))
    text, key = text[order], key[order]
    first = np.concatenate([[True], (text[1:] != text[:-1]) | (key[1:] != key[:-1])])
    at = np.flatnonzero(first)
    return text[at], key[at], np.diff(np.concatenate([at, [len(key)]]))


def _scramble(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
