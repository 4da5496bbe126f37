"""Takes for hard what a small n-gram model of the same text finds surprising.

The model counts runs of tokens in hashed tables and falls back from long runs to short ones. The occurrence
that is judged is taken out of the counts, so that a run seen once is no help.

Pays when: the text has damaged or foreign parts; they surprise most.
Hurts when: the text repeats itself: copies surprise least.
Cost: about 1 s for 2 million tokens on one core; memory 17 MB for each token of `order`, and 70 MB.
Source: perplexity under a small model, as in Ankner et al. 2024 (arXiv 2405.20541); interpolation by
    Jelinek and Mercer; hashed counts as in common practice.
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.supply import FixedWindows, Supply

SLOTS = 1 << 22
WEIGHT = 4.0
"""What a shorter run's probability counts for, in occurrences."""
BLOCK_BYTES = 70 * 2**20
"""Held while a block of windows is judged."""


class Settings(VariantSettings):
    """Settings of `ngram_perplexity`."""

    order: int = Field(default=3, ge=1, le=5, description="tokens of the longest run, with the predicted one")


def seconds(tokens: float) -> float:
    """Forecasts the time of measuring, on one core."""
    return 0.2 + tokens / 2e6


def held_bytes(settings: Settings) -> int:
    """Forecasts the memory of measuring."""
    return 4 * SLOTS * settings.order + BLOCK_BYTES


def measure(supply: Supply, windows: FixedWindows, settings: Settings) -> np.ndarray:
    """Gives the mean surprise of every window's tokens, in nats."""
    import numpy as np

    total = 0
    tables = [np.zeros(SLOTS, dtype=np.int32) for _ in range(settings.order)]
    for _, rows in windows.blocks():
        total += rows.size
        for run, table in zip(_runs(rows, settings.order), tables, strict=True):
            np.add.at(table, run[run >= 0], 1)
    found = np.empty(len(windows))
    vocab = int(supply.facts["vocab_size"])
    for here, rows in windows.blocks():
        found[here] = _surprise(rows, tables, total, vocab)
    return found


def _surprise(rows: np.ndarray, tables: list[np.ndarray], total: int, vocab: int) -> np.ndarray:
    import numpy as np

    p = np.full(rows.shape, 1.0 / vocab)
    before: np.ndarray | None = None
    for run, table in zip(_runs(rows, len(tables)), tables, strict=True):
        inside = run >= 0
        slot = np.where(inside, run, 0)
        # One occurrence is the very token judged.
        seen = np.where(inside, np.maximum(table[slot] - 1, 0), 0)
        if before is None:
            context = np.full(rows.shape, max(total - 1, 0))
        else:
            # How often the context occurred: the run one shorter, ending one token earlier.
            context = np.zeros(rows.shape, dtype=np.int64)
            context[:, 1:] = before[:, :-1]
            context = np.where(inside, np.maximum(context, seen), 0)
        p = (seen + WEIGHT * p) / (context + WEIGHT)
        before = seen
    return -np.log(p).mean(1)


def _runs(rows: np.ndarray, order: int) -> list[np.ndarray]:
    """Gives for every token the slot of the run of 1, 2 … tokens that ends with it; -1 for none."""
    import numpy as np

    from kogata.engine.sampler import mix

    found: list[np.ndarray] = []
    code = np.zeros(rows.shape, dtype=np.uint64)
    for length in range(order):
        code = code.copy()
        ids = np.zeros(rows.shape, dtype=np.uint64)
        ids[:, length:] = rows[:, : rows.shape[1] - length]
        code = mix(code ^ (ids + np.uint64(1)), length)
        slots = (code % np.uint64(SLOTS)).astype(np.int64)
        slots[:, :length] = -1
        found.append(slots)
    return found
