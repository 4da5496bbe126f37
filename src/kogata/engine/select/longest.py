"""Length: a free baseline that is hard to beat on instructions."""

from __future__ import annotations

import numpy as np

from kogata.core.variants import VariantSettings
from kogata.engine.select._pool import Pool
from kogata.engine.text import utf8_length

NEEDS: frozenset[str] = frozenset()
BYTES_PER_SECOND = 150e6


class Settings(VariantSettings):
    """Keeps the longest documents, or the examples with the longest answers. (Zhao et al. 2024.)"""


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Counts the bytes of each text, or answer."""
    if pool.kind != "examples":
        return pool.sizes.astype(np.float64)
    return np.array([float(utf8_length(item.answer)) for item in pool.items()])
