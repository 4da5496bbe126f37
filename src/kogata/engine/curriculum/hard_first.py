"""Draws from the hardest text at first, from more and more of it as training goes on, then from all.

The mirror image of easy_first: the pool grows from the hardest `start` to everything.

Pays when: as the control of easy_first: if both pay, it is not the difficulty.
Hurts when: the hardest text is damaged text.
Cost: that of the measure (`by`).
Source: anti-curriculum, as in Wu et al. 2020 (arXiv 2012.03107).
Measured here: 18 s of training, five seeds, beside half_length: +0.000
[curriculum.json:table.text.hard_first.difference.mean:+.3f] bits per byte (95%: -0.006
[curriculum.json:table.text.hard_first.difference.low:+.3f] to +0.006
[curriculum.json:table.text.hard_first.difference.high:+.3f]), no difference shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.engine.curriculum._growing import Growing

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Settings(Growing):
    """Settings of `hard_first`."""


def seconds(tokens: float, settings: Settings) -> float:
    """Forecasts measuring the difficulty."""
    return settings.by.variant.seconds(tokens)


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._ordered import ordered

    def pool(progress: float) -> tuple[float, float]:
        return 1.0 - settings.share(progress), 1.0

    return ordered(supply, settings.by, pool)
