"""Ends on the best text: shuffled at first, then, while the learning rate falls, only the best of it.

The best is what the measure calls easiest; by a column of your own, the lowest or (`reverse`) the highest.

Pays when: a measure of quality is trusted, a classifier's score or a judgement in a column.
Hurts when: the best text is little and seen many times, or the score is on text like the whole.
Cost: that of the measure (`by`).
Source: annealing on the best data: Blakeney et al. 2024 (arXiv 2406.03476); 10 to 20 % of training.
Measured here: 18 s of training, five seeds, beside half_length: +0.005
[curriculum.json:table.text.quality_anneal.difference.mean:+.3f] bits per byte (95%: +0.003
[curriculum.json:table.text.quality_anneal.difference.low:+.3f] to +0.007
[curriculum.json:table.text.quality_anneal.difference.high:+.3f]), worse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.curriculum._difficulty import Difficulty

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Settings(VariantSettings):
    """Settings of `quality_anneal`."""

    by: Difficulty = Field(
        default_factory=lambda: Difficulty.of("ngram_perplexity"), description="what tells the best text"
    )
    share: float = Field(
        default=0.15, gt=0, lt=1, description="share of training, at its end, that sees only the best"
    )
    best: float = Field(default=0.3, gt=0, le=1, description="share of the text that is the best")


def seconds(tokens: float, settings: Settings) -> float:
    """Forecasts measuring the quality."""
    return settings.by.variant.seconds(tokens)


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._ordered import PACES, ordered

    begins = int((1 - settings.share) * PACES) / PACES

    def pool(progress: float) -> tuple[float, float]:
        return (0.0, settings.best) if progress >= begins else (0.0, 1.0)

    return ordered(supply, settings.by, pool)
