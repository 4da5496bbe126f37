"""Gives the easiest text in order for a first part of training, then everything shuffled.

What the first part has shown comes last again afterwards: of all text what was seen least is drawn first.

Pays when: training is long enough for a start on easy text to be forgotten, and the first steps are rough.
Hurts when: the first part is a large share of what is seen.
Cost: that of the measure (`by`).
Source: easy text as a warm-up: Zhang et al. 2025 (arXiv 2506.11300).
Measured here: 18 s of training, five seeds, beside half_length: +0.005
[curriculum.json:table.text.warmup_only.difference.mean:+.3f] bits per byte (95%: +0.001
[curriculum.json:table.text.warmup_only.difference.low:+.3f] to +0.009
[curriculum.json:table.text.warmup_only.difference.high:+.3f]), worse.
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
    """Settings of `warmup_only`."""

    by: Difficulty = Field(
        default_factory=lambda: Difficulty.of("compressibility"), description="what makes text hard"
    )
    share: float = Field(
        default=0.15, gt=0, le=1, description="share of training in which text comes from easy to hard"
    )


def seconds(tokens: float, settings: Settings) -> float:
    """Forecasts measuring the difficulty."""
    return settings.by.variant.seconds(tokens)


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._ordered import ordered

    return ordered(supply, settings.by, lambda progress: (0.0, 1.0), sorted_until=settings.share)
