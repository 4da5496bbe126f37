"""Weighs each source by its size: everything once, as if there were no sources.

Pays when: nothing is known of the sources; every other mixture has to beat this one.
Hurts when: a small source matters more than its size says.
Cost: nothing.
Source: common practice; Aioli (arXiv 2411.05735) finds no dynamic method that beats it throughout.
Measured here: not yet measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from kogata.core.variants import VariantSettings


class Settings(VariantSettings):
    """`proportional` has none."""


def weigh(sizes: Mapping[str, int], settings: Settings) -> dict[str, float]:
    """Gives each source the weight of its size in bytes or tokens."""
    return {name: float(size) for name, size in sizes.items()}
