"""Takes for hard what stands in long documents: the mean length of the documents a window is of.

Pays when: documents are of very different length, and short ones are simple.
Hurts when: all documents are books, or short ones are fragments.
Cost: next to nothing.
Source: sentence length is the oldest measure of difficulty (Platanios et al. 2019, arXiv 1903.09848).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.supply import FixedWindows, Supply


class Settings(VariantSettings):
    """`length` has none."""


def seconds(tokens: float) -> float:
    """Forecasts the time of measuring, on one core."""
    return 0.1 + tokens / 1e8


def measure(supply: Supply, windows: FixedWindows, settings: Settings) -> np.ndarray:
    """Gives the mean logarithm of the documents' lengths in tokens."""
    import numpy as np

    return windows.means(np.log(np.maximum(1, np.diff(windows.offsets))))
