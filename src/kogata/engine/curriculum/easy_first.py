"""Draws from the easiest text at first, from more and more of it as training goes on, then from all.

The pool grows in a line from `start` to everything; of the pool what was seen least comes first, so the
newly admitted is seen at once. Pacing is by the share of the budget, time or steps.

Pays when: the hard part of the text is noise, and the budget is short.
Hurts when: the text is clean: shuffled text is hard to beat, and easy text is seen more than once.
Cost: that of the measure (`by`).
Source: Bengio et al. 2009; pacing as in Wu et al. 2020 (arXiv 2012.03107), who find it seldom pays.
Measured here: 18 s of training, five seeds, beside half_length: +0.005
[curriculum.json:table.text.easy_first.difference.mean:+.3f] bits per byte (95%: -0.001
[curriculum.json:table.text.easy_first.difference.low:+.3f] to +0.011
[curriculum.json:table.text.easy_first.difference.high:+.3f]), no difference shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.engine.curriculum._growing import Growing

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Settings(Growing):
    """Settings of `easy_first`."""


def seconds(tokens: float, settings: Settings) -> float:
    """Forecasts measuring the difficulty."""
    return settings.by.variant.seconds(tokens)


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._ordered import ordered

    def pool(progress: float) -> tuple[float, float]:
        return 0.0, settings.share(progress)

    return ordered(supply, settings.by, pool)
