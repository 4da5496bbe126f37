"""A classifier that tells the target from the pool: hashed n-gram logistic regression."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from kogata.core.errors import DataError
from kogata.core.variants import VariantSettings
from kogata.engine.select._features import buckets_of, sums_of
from kogata.engine.select._pool import Pool, chance, grouped, pieces_of
from kogata.engine.select._steps import Adding, joined

NEEDS = frozenset({"target"})
SPREADS = True
"""Several processes can score."""
BYTES_PER_SECOND = 20e6
MOST_PIECES = 4_000
LEAST_PIECES = 20
BUCKETS = 2**18
BATCH = 64
RATE = 0.5


class Settings(VariantSettings):
    """Keeps what looks most like the target, to a classifier that learned to tell it from the pool.

    Logistic regression on hashed words and pairs of words (characters and their runs where no spaces part
    words). What the target is decides everything. (Li et al. 2024, DataComp-LM.)
    """

    ngram: int = Field(default=2, ge=1, le=4, description="longest run of words or characters looked at")
    passes: int = Field(default=5, ge=1, le=100, description="passes over the pieces in learning")


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives each document's margin: above 0 it looks more like the target than like the pool.

    Raises:
        DataError: there is too little text to learn from.
    """
    draw = chance(pool.seed, 3)
    wanted = [piece for text in pool.target for piece in pieces_of(text)]
    wanted = [wanted[at] for at in sorted(draw.permutation(len(wanted))[:MOST_PIECES])]
    share = min(1.0, 2 * MOST_PIECES / max(1, len(pool.sizes)))
    have = [piece for item in pool.items() if draw.random() < share for piece in pieces_of(item.text, 1)]
    have = [have[at] for at in sorted(draw.permutation(len(have))[:MOST_PIECES])]
    if min(len(wanted), len(have)) < LEAST_PIECES:
        raise DataError(
            "too little text to learn a classifier from",
            where="data.select, method classifier",
            found=f"{len(wanted)} pieces of the target, {len(have)} of the pool",
            expected=f"at least {LEAST_PIECES} of each, a document or about 2,000 characters a piece",
            remedy="give more target text, or another method",
        )
    weights, bias = _learned(wanted, have, settings, draw)
    sums, _, sizes = joined(pool.mapped(Adding(BUCKETS, settings.ngram, values=weights)), 3)
    return np.where(sizes > 0, sums / np.maximum(1, sizes) + bias, -np.inf)


def _learned(
    wanted: list[str], have: list[str], settings: Settings, draw: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Learns by AdaGrad; a text is the mean of its n-grams, and both kinds weigh the same."""
    texts = [*wanted, *have]
    labels = np.repeat([1.0, 0.0], [len(wanted), len(have)])
    each = np.repeat([0.5 / len(wanted), 0.5 / len(have)], [len(wanted), len(have)]) * len(texts)
    parts = [buckets_of(group, settings.ngram, BUCKETS) for group in grouped(texts)]
    rows = [found[a:b] for found, starts in parts for a, b in zip(starts[:-1], starts[1:], strict=True)]
    weights, bias = np.zeros(BUCKETS), 0.0
    squares, bias_squares = np.full(BUCKETS, 1e-8), 1e-8
    for _ in range(settings.passes):
        order = draw.permutation(len(rows))
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            sizes = np.array([len(rows[row]) for row in chosen])
            starts = np.concatenate([[0], np.cumsum(sizes)])
            buckets = np.concatenate([rows[row] for row in chosen])
            share = 1 / np.maximum(1, sizes)
            margin = sums_of(weights[buckets], starts) * share + bias
            error = (1 / (1 + np.exp(-margin)) - labels[chosen]) * each[chosen] / len(chosen)
            slope = np.bincount(buckets, np.repeat(error * share, sizes), BUCKETS)
            squares += slope**2
            weights -= RATE * slope / np.sqrt(squares)
            bias_squares += float(error.sum()) ** 2
            bias -= RATE * float(error.sum()) / bias_squares**0.5
    return weights, bias
