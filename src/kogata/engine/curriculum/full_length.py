"""Trains on windows of the whole context from the first step to the last; the text is shuffled throughout.

Pays when: as the control of every other curriculum; and where the sampling needs windows that stay the same.
Hurts when: early training pays for attention that teaches little yet.
Cost: nothing.
Source: common practice.
Measured here: the control that other ways are set beside (benchmarks/bench_curriculum.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Settings(VariantSettings):
    """`full_length` has none."""


def lengths(context: int, settings: Settings) -> tuple[list[int], list[float]]:
    """Gives the windows' lengths one after another, and the share of training each but the last has."""
    return [context], []


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._lengths import by_length

    return by_length(supply, *lengths(supply.context, settings), told=False)
