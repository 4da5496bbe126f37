"""Weighs each source by a root of its size: small sources are seen more often than their size says.

Pays when: sources differ much in size, as languages do, and the small ones are to be learned too.
Hurts when: the smallest source is tiny: it is repeated until the cap, and learned by heart.
Cost: nothing.
Source: Conneau et al. 2019 (arXiv 1911.02116): exponent 0.3, a temperature of 3.3.
Measured here: not yet measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from kogata.core.variants import VariantSettings


class Settings(VariantSettings):
    """Settings of `temperature`."""

    temperature: float = Field(
        default=3.3, ge=1, le=1000, description="weights are size^(1/temperature): 1 by size, large evenly"
    )


def weigh(sizes: Mapping[str, int], settings: Settings) -> dict[str, float]:
    """Gives each source the root of its size."""
    return {name: float(size) ** (1 / settings.temperature) for name, size in sizes.items()}
