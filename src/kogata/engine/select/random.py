"""Chance: the control that every other selector is measured against."""

from __future__ import annotations

import numpy as np

from kogata.core.variants import VariantSettings
from kogata.engine.select._pool import Pool, chance

NEEDS: frozenset[str] = frozenset()
BYTES_PER_SECOND = 1e9


class Settings(VariantSettings):
    """Keeps by chance, by the recipe's seed: the control."""


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Draws a number for each item."""
    return chance(pool.seed, 1).random(len(pool.sizes))
