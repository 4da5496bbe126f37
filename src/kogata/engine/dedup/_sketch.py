"""Sketches: a document's runs of words as a sorted set of numbers, and the bands its like are found by.

One permutation, cut into bins; the least number of each bin is a MinHash, and an empty bin borrows from
another by a fixed order (optimal densification). The sets are sorted anyway, for the exact comparison, so a
sketch costs one search per bin whatever the document's length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from kogata.engine.ngrams import mix, runs_of, units_of

MISSED = 0.002
"""Share of pairs exactly at the threshold that no band may bring together."""
MOST_BANDS = 24


def bands_for(threshold: float) -> tuple[int, int]:
    """Chooses bands and rows: the most rows, so the fewest needless comparisons, that miss few pairs."""
    best = (MOST_BANDS, 1)
    for rows in range(1, 33):
        bands = math.ceil(math.log(MISSED) / math.log1p(-(threshold**rows)))
        if bands > MOST_BANDS:
            break
        best = (bands, rows)
    return best


def sets_of(texts: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives each text's set of runs: sorted numbers of 32 bits, and where each text's begin."""
    runs, bounds = runs_of(*units_of(texts), ngram)
    text = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(bounds))
    keys = np.sort(text << np.uint64(32) | runs >> np.uint64(32))
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    keys = keys[new]
    starts = np.searchsorted(keys, np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), starts.astype(np.int64)


@cache
def _order(bins: int) -> np.ndarray:
    """Gives for each bin the order in which it asks others, itself first."""
    chance = np.random.Generator(np.random.Philox(7)).random((bins, bins))
    chance[np.arange(bins), np.arange(bins)] = -1.0
    return np.argsort(chance, axis=1)


def sketch(values: np.ndarray, starts: np.ndarray, bins: int) -> np.ndarray:
    """Computes the least number of each bin, [texts, bins]; a text without runs has zeros."""
    texts = len(starts) - 1
    text = np.repeat(np.arange(texts, dtype=np.uint64), np.diff(starts))
    keys = text << np.uint64(32) | values
    edges = (np.arange(bins + 1, dtype=np.uint64) << np.uint64(32)) // np.uint64(bins)
    wanted = (np.arange(texts, dtype=np.uint64)[:, None] << np.uint64(32)) + edges[None]
    where = np.searchsorted(keys, wanted.ravel()).reshape(texts, bins + 1)
    full: np.ndarray = np.less(where[:, :-1], where[:, 1:])
    least = np.zeros((texts, bins), dtype=np.uint32)
    if len(values):
        least[:] = values[np.minimum(where[:, :-1], len(values) - 1)]
    filled = np.count_nonzero(full, axis=1)
    least[filled == 0] = 0
    # A text with one full bin, as the shortest have: nobody else can be asked.
    (alone,) = np.nonzero(filled == 1)
    least[alone] = least[alone, np.argmax(full[alone], axis=1)][:, None]
    order = _order(bins)
    empty_text, empty_bin = np.nonzero(~full & (filled > 1)[:, None])
    for turn in range(1, bins):
        if not len(empty_text):
            break
        donor = order[empty_bin, turn]
        found = full[empty_text, donor]
        least[empty_text[found], empty_bin[found]] = least[empty_text[found], donor[found]]
        empty_text, empty_bin = empty_text[~found], empty_bin[~found]
    return least


def band_keys(least: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Hashes each band of a sketch to one number, [bands, texts]; rows are dealt to bands in turn."""
    keys = np.zeros((bands, len(least)), dtype=np.uint64)
    for row in range(rows):
        column = least[:, row * bands : (row + 1) * bands].T.astype(np.uint64)
        keys = mix(keys ^ (column + np.uint64(row + 1)))
    return keys


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the share of two sorted sets' numbers that both have."""
    both = np.concatenate((a, b))
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common) if len(both) else 0.0
