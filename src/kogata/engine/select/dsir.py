"""Importance resampling: documents as likely as the target makes them, by hashed n-grams."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.select._features import buckets_of, sums_of
from kogata.engine.select._pool import Pool, chance, grouped

NEEDS = frozenset({"target"})
BYTES_PER_SECOND = 14e6
"""On one core; the pool is read twice."""


class Settings(VariantSettings):
    """Draws documents in proportion to how much likelier the target makes their words than the pool does.

    Words and pairs of words (characters and their runs where no spaces part words), each document taken as
    if it had `grams` of them, so that length does not decide. (Xie et al. 2023.)
    """

    ngram: int = Field(default=2, ge=1, le=4, description="longest run of words or characters counted")
    buckets: int = Field(
        default=2**16, ge=2**8, le=2**22, description="numbers that runs are hashed to; more tell finer"
    )
    grams: float = Field(
        default=100.0,
        gt=0,
        description="runs a document counts for: many keep the likest, few draw nearly by chance",
    )


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives the logarithm of each document's weight, plus chance (Gumbel): the highest are the draw."""

    def counted(groups: object) -> np.ndarray:
        total = np.zeros(settings.buckets, dtype=np.int64)
        for texts in groups:  # type: ignore[attr-defined]
            found, _ = buckets_of(texts, settings.ngram, settings.buckets)
            total += np.bincount(found, minlength=settings.buckets)
        return total

    wanted = counted(grouped(pool.target))
    have = counted([item.text for item in batch] for batch in pool.batches())
    ratio = np.log(_shares(wanted)) - np.log(_shares(have))
    found = []
    for batch in pool.batches():
        buckets, starts = buckets_of([item.text for item in batch], settings.ngram, settings.buckets)
        sizes = np.diff(starts)
        mean = sums_of(ratio[buckets], starts) / np.maximum(1, sizes)
        found.append(np.where(sizes > 0, settings.grams * mean, -np.inf))
    weights = np.concatenate([np.zeros(0), *found])
    return weights + chance(pool.seed, 2).gumbel(size=len(weights))


def _shares(counts: np.ndarray) -> np.ndarray:
    return (counts + 1) / (counts.sum() + len(counts))
