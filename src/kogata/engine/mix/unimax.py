"""Splits the text evenly among the sources; one that runs out is repeated up to the cap.

Pays when: there are several sources of very different size and none matters more than another.
Hurts when: a large source is simply better than the small ones: it gets less than its size.
Cost: nothing.
Source: UniMax, Chung et al. 2023 (arXiv 2304.09151), algorithm 1; four epochs after Muennighoff et al. 2023.
Measured here: not yet measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from kogata.core.variants import VariantSettings


class Settings(VariantSettings):
    """`unimax` has none of its own: the cap is `most_epochs`, which holds for every way of weighing."""


def weigh(sizes: Mapping[str, int], settings: Settings) -> dict[str, float]:
    """Gives every source the same weight; the cap on epochs does the rest."""
    return {name: 1.0 if size else 0.0 for name, size in sizes.items()}
