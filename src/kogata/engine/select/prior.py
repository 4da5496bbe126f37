"""Word frequencies alone: what uses its words as the pool at large does."""

from __future__ import annotations

import numpy as np

from kogata.core.variants import VariantSettings
from kogata.engine.ngrams import units_of
from kogata.engine.select._features import standard, sums_of
from kogata.engine.select._pool import Pool

NEEDS: frozenset[str] = frozenset()
BYTES_PER_SECOND = 18e6
BUCKETS = 2**20


class Settings(VariantSettings):
    """Keeps documents whose words are neither oddly rare nor oddly common nor oddly even; needs no target.

    How often each word (or character) occurs in the pool gives every document a mean and a deviation of log
    frequency; the nearer to the pool's median in both, the better. (Seo et al. 2025.)
    """


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives minus the larger of both distances, in median deviations."""
    counts = np.zeros(BUCKETS, dtype=np.int64)
    for batch in pool.batches():
        units, _ = units_of([item.text for item in batch])
        counts += np.bincount((units % np.uint64(BUCKETS)).astype(np.int64), minlength=BUCKETS)
    logs = np.log((counts + 1) / (counts.sum() + BUCKETS))
    sizes, means, squares = [], [], []
    for batch in pool.batches():
        units, starts = units_of([item.text for item in batch])
        values = logs[(units % np.uint64(BUCKETS)).astype(np.int64)]
        size = np.maximum(1, np.diff(starts))
        sizes.append(np.diff(starts))
        means.append(sums_of(values, starts) / size)
        squares.append(sums_of(values**2, starts) / size)
    if not sizes:
        return np.zeros(0)
    mean, some = np.concatenate(means), np.concatenate(sizes) > 0
    spread = np.sqrt(np.maximum(0.0, np.concatenate(squares) - mean**2))
    odd = np.full(len(mean), np.inf)
    if some.any():
        odd[some] = np.maximum(np.abs(standard(mean[some])), np.abs(standard(spread[some])))
    return -odd
