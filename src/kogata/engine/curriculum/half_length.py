"""Trains on windows of half the context first, then on whole ones; the text is shuffled throughout.

Pays when: always; half of training at half the context lost nothing and saved attention.
Hurts when: the text is judged on what only long windows teach.
Cost: less than nothing: attention over half as much.
Source: Kogata; after Press et al. 2020 (arXiv 2012.15832).
Measured here: 18 s of training at context 512, five seeds, beside full_length: -0.009
[curriculum.json:table.length.half_length_512.difference.mean:+.3f] bits per byte (95%: -0.015
[curriculum.json:table.length.half_length_512.difference.low:+.3f] to -0.004
[curriculum.json:table.length.half_length_512.difference.high:+.3f]), better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply

LEAST_CONTEXT = 64


class Settings(VariantSettings):
    """Settings of `half_length`."""

    share: float = Field(
        default=0.5, ge=0, le=1, description="share of training with windows of half the context"
    )


def lengths(context: int, settings: Settings) -> tuple[list[int], list[float]]:
    """Gives the windows' lengths one after another, and the share of training each but the last has."""
    if settings.share > 0 and context >= 2 * LEAST_CONTEXT:
        return [context // 2, context], [settings.share]
    return [context], []


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._lengths import by_length

    return by_length(supply, *lengths(supply.context, settings), told=False)
