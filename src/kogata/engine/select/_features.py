"""Hashed n-grams of texts, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kogata.engine.ngrams import runs_of, units_of


def buckets_of(texts: Sequence[str], ngram: int, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives the buckets of each text's words (or characters) and runs of up to `ngram` of them.

    Returns:
        Buckets, text after text, and where each text's begin (int64, texts + 1).
    """
    units, bounds = units_of(texts)
    runs = [(units, bounds), *(runs_of(units, bounds, length) for length in range(2, ngram + 1))]
    counts = sum(np.diff(starts) for _, starts in runs)
    starts = np.concatenate([[0], np.cumsum(counts)])
    found = np.zeros(int(starts[-1]), dtype=np.int32)
    at = starts[:-1].copy()
    for numbers, bounds in runs:
        sizes = np.diff(bounds)
        place = np.repeat(at - bounds[:-1], sizes) + np.arange(len(numbers))
        found[place] = (numbers % np.uint64(buckets)).astype(np.int32)
        at += sizes
    return found, starts


def sums_of(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Adds the values of each text; 0 for one without any."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return total[starts[1:]] - total[starts[:-1]]


def standard(values: np.ndarray) -> np.ndarray:
    """Gives distances from the median, in median deviations."""
    middle = np.median(values)
    return (values - middle) / max(1e-9, float(np.median(np.abs(values - middle))))
