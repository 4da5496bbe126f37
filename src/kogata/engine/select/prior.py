"""Word frequencies alone: what uses its words as the pool at large does."""

from __future__ import annotations

import numpy as np

from kogata.core.variants import VariantSettings
from kogata.engine.select._features import standard
from kogata.engine.select._pool import Pool
from kogata.engine.select._steps import Adding, Counting, counted, joined

NEEDS: frozenset[str] = frozenset()
SPREADS = True
"""Several processes can score."""
STEP_BYTES = 10 * 2**20
"""What each of them holds."""
BYTES_PER_SECOND = 18e6
BUCKETS = 2**20


class Settings(VariantSettings):
    """Keeps documents whose words are neither oddly rare nor oddly common nor oddly even; needs no target.

    How often each word (or character) occurs in the pool gives every document a mean and a deviation of log
    frequency; the nearer to the pool's median in both, the better. (Seo et al. 2025.)
    """


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives minus the larger of both distances, in median deviations."""
    counts = counted(pool.mapped(Counting(BUCKETS)), BUCKETS)
    logs = np.log((counts + 1) / (counts.sum() + BUCKETS))
    sums, squares, sizes = joined(pool.mapped(Adding(BUCKETS, values=logs)), 3)
    if not len(sizes):
        return np.zeros(0)
    mean, some = sums / np.maximum(1, sizes), sizes > 0
    spread = np.sqrt(np.maximum(0.0, squares / np.maximum(1, sizes) - mean**2))
    odd = np.full(len(mean), np.inf)
    if some.any():
        odd[some] = np.maximum(np.abs(standard(mean[some])), np.abs(standard(spread[some])))
    return -odd
