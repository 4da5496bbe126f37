"""Perplexity under a small language model of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.select._ngram_model import NgramModel
from kogata.engine.select._pool import Pool, chance, grouped, pieces_of
from kogata.engine.select._steps import Arrays, joined

NEEDS: frozenset[str] = frozenset()
SPREADS = True
"""Several processes can score."""
STEP_BYTES = 110 * 2**20
"""What each of them holds."""
BYTES_PER_SECOND = 2.5e6
LEARNED_BYTES = 8_000_000
"""Of text that the model learns from at most."""
PIECES = 2
"""Of each document that are scored."""


class Settings(VariantSettings):
    """Keeps documents that a small model of bytes predicts well; it learns from the target, else the pool.

    Counts of bytes after up to five others, learned from the target's texts; without a target from a random
    part of the pool, and then `middle` is the better band. (Ankner et al. 2024.)
    """

    band: Literal["auto", "low", "middle", "high"] = Field(
        default="auto",
        description="which perplexities stay; auto: low with a target, the middle without",
    )


@dataclass(frozen=True)
class _Predicting:
    """Gives the bits per byte of texts, of long ones a few pieces."""

    model: NgramModel

    def __call__(self, texts: Sequence[str]) -> Arrays:
        """Works on the texts."""
        return (self.model.bits(["\n".join(pieces_of(text, PIECES)) for text in texts]),)


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives minus the bits per byte (low), the bits (high), or minus the distance from the median."""
    model = NgramModel()
    model.learn(grouped(pool.target[: _most(pool.target)]) if pool.target else _sample(pool))
    (bits,) = joined(pool.mapped(_Predicting(model)), 1)
    band = settings.band if settings.band != "auto" else "low" if pool.target else "middle"
    some = np.isfinite(bits)
    if band == "high":
        return np.where(some, bits, -np.inf)
    if band == "middle":
        bits = np.abs(bits - np.median(bits[some])) if some.any() else bits
    return np.where(some, -bits, -np.inf)


def _most(texts: list[str]) -> int:
    """Says how many texts make what the model learns from."""
    total = np.cumsum([len(text) for text in texts])
    return max(1, int(np.searchsorted(total, LEARNED_BYTES)) + 1)


def _sample(pool: Pool) -> Iterator[list[str]]:
    """Yields a part of the pool by chance, cut where a document is long."""
    share = min(0.5, LEARNED_BYTES / max(1, int(pool.sizes.sum())))
    draw = chance(pool.seed, 4)
    for batch in pool.batches():
        texts = [item.text for item in batch if draw.random() < share]
        if texts:
            yield texts
