"""Importance resampling: documents as likely as the target makes them, by hashed n-grams."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.select._pool import Pool, chance, grouped
from kogata.engine.select._steps import Adding, Counting, counted, joined

NEEDS = frozenset({"target"})
SPREADS = True
"""Several processes can score."""
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

    counting = Counting(settings.buckets, settings.ngram)
    wanted = counted(map(counting, grouped(pool.target)), settings.buckets)
    have = counted(pool.mapped(counting), settings.buckets)
    ratio = np.log(_shares(wanted)) - np.log(_shares(have))
    adding = Adding(settings.buckets, settings.ngram, values=ratio)
    sums, _, sizes = joined(pool.mapped(adding), 3)
    weights = np.where(sizes > 0, settings.grams * sums / np.maximum(1, sizes), -np.inf)
    return weights + chance(pool.seed, 2).gumbel(size=len(weights))


def _shares(counts: np.ndarray) -> np.ndarray:
    return (counts + 1) / (counts.sum() + len(counts))
