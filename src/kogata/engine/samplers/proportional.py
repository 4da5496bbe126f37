"""Samples all text evenly: every token once an epoch, whatever its source.

Pays when: as the control of every other way; no dynamic way is known to beat it throughout.
Hurts when: sources matter otherwise than by their size: mix them with data.mix first.
Cost: nothing.
Source: common practice; Aioli (arXiv 2411.05735).
Measured here: the control that other ways are set beside (benchmarks/bench_curriculum.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.core.variants import Choice, VariantSettings

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Settings(VariantSettings):
    """`proportional` has none."""


def make(supply: Supply, curriculum: Choice, settings: Settings) -> Sampler:
    """Makes a run's sampler: the curriculum's own."""
    return curriculum.variant.make(supply, curriculum.settings)
