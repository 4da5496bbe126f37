"""Takes for hard what has rare words: the mean surprise of a window's tokens by their frequency alone.

Pays when: rare words are names and terms that can wait.
Hurts when: rare tokens are what is to be learned.
Cost: about 1 s for 100 million tokens on one core.
Source: word rarity: Platanios et al. 2019 (arXiv 1903.09848).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.supply import FixedWindows, Supply


class Settings(VariantSettings):
    """`rarity` has none."""


def seconds(tokens: float) -> float:
    """Forecasts the time of measuring, on one core."""
    return 0.1 + tokens / 4e7


def measure(supply: Supply, windows: FixedWindows, settings: Settings) -> np.ndarray:
    """Gives the mean of -log p(token), the frequencies being those of the training text."""
    import numpy as np

    vocab = int(supply.facts["vocab_size"])
    counts = np.zeros(vocab)
    for _, rows in windows.blocks():
        counts += np.bincount(rows.ravel(), minlength=vocab)
    surprise = -np.log(np.maximum(counts, 1) / counts.sum())
    found = np.empty(len(windows))
    for here, rows in windows.blocks():
        found[here] = surprise[rows].mean(1)
    return found
