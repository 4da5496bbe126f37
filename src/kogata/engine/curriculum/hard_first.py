"""Draws from the hardest text at first, from more and more of it as training goes on, then from all.

The mirror image of easy_first: the pool grows from the hardest `start` to everything.

Pays when: as the control of easy_first: if both pay, it is not the difficulty.
Hurts when: the hardest text is damaged text.
Cost: that of the measure (`by`).
Source: anti-curriculum, as in Wu et al. 2020 (arXiv 2012.03107).
Measured here: not yet measured.
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
    """Settings of `hard_first`."""

    by: Difficulty = Field(
        default_factory=lambda: Difficulty.of("compressibility"), description="what makes text hard"
    )
    start: float = Field(default=0.2, gt=0, le=1, description="share of the text drawn from at the beginning")
    until: float = Field(
        default=0.7, gt=0, le=1, description="share of training after which all text is drawn from"
    )


def seconds(tokens: float, settings: Settings) -> float:
    """Forecasts measuring the difficulty."""
    return settings.by.variant.seconds(tokens)


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._ordered import ordered

    def pool(progress: float) -> tuple[float, float]:
        grown = min(1.0, progress / settings.until)
        return (1 - settings.start) * (1 - grown), 1.0

    return ordered(supply, settings.by, pool)
