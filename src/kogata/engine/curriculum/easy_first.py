"""Draws from the easiest text at first, from more and more of it as training goes on, then from all.

The pool grows in a line from `start` to everything; of the pool what was seen least comes first, so the
newly admitted is seen at once. Pacing is by the share of the budget, time or steps.

Pays when: the hard part of the text is noise, and the budget is short.
Hurts when: the text is clean: shuffled text is hard to beat, and easy text is seen more than once.
Cost: that of the measure (`by`).
Source: Bengio et al. 2009; pacing as in Wu et al. 2020 (arXiv 2012.03107), who find it seldom pays.
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
    """Settings of `easy_first`."""

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
        return 0.0, settings.start + (1 - settings.start) * grown

    return ordered(supply, settings.by, pool)
