"""What follows a run of tokens in a text: counts of n-grams, discounted, the most frequent followers kept.

Orders are interpolated by absolute discounting (Ney, Essen and Kneser 1994; Chen and Goodman 1999, section
2.6): p(w | run) = (count - d) / total + rest · p(w | shorter run). The discount of an order is estimated from
how many of its n-grams occur once and twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PIECE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Order:
    """The followers of all runs of one length."""

    length: int
    """Tokens of a run."""
    runs: Array
    """Their numbers, in order, int64 [R]."""
    starts: Array
    """Where each run's followers begin, [R + 1]."""
    tokens: Array
    """The followers, the most frequent of each run, int32."""
    shares: Array
    """Their discounted shares, float32."""
    rest: Array
    """What each run leaves to the shorter one, float32 [R]."""


def count(ids: Array, vocab_size: int, order: int, top: int, most: int) -> list[Order]:
    """Counts n-grams of 2 to `order` tokens; gives the longest runs first.

    Args:
        ids: the text's tokens; they may lie on disk.
        vocab_size: so that every n-gram has a number of its own in 63 bits.
        order: tokens of the longest n-gram.
        top: followers kept of a run.
        most: tokens counted at most.
    """
    assert vocab_size**order < 2**63, f"{order} of {vocab_size} ids take more than 63 bits"
    seen = sampled(ids, most)
    return [_order(seen, vocab_size, length, top) for length in range(order - 1, 0, -1)]


def sampled(ids: Array, most: int) -> list[Array]:
    """Cuts at most so many tokens evenly out of a text, as int64."""
    room = min(1.0, most / max(1, len(ids)))
    size = len(ids) if room == 1.0 else PIECE
    starts = range(0, len(ids), max(1, size))
    return [np.asarray(ids[start : start + int(room * size)], dtype=np.int64) for start in starts]


def number(tokens: Array, length: int, vocab_size: int) -> Array:
    """Numbers the runs that end at each position of [..., T] from `length` - 1 on: [..., T - length + 1]."""
    count = tokens.shape[-1] - length + 1
    found = np.zeros((*tokens.shape[:-1], max(0, count)), dtype=np.int64)
    for place in range(length):
        found *= vocab_size
        found += tokens[..., place : place + max(0, count)]
    return found


def _order(pieces: list[Array], vocab_size: int, length: int, top: int) -> Order:
    grams = np.concatenate([number(piece, length + 1, vocab_size) for piece in pieces])
    grams.sort()
    first = np.flatnonzero(np.concatenate([[True], grams[1:] != grams[:-1]])) if len(grams) else grams[:0]
    counts = np.diff(np.append(first, len(grams)))
    grams = grams[first]
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / max(1, once + 2 * twice)
    owners = grams // vocab_size
    begins = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]])) if len(owners) else owners
    totals = np.add.reduceat(counts, begins) if len(begins) else counts
    kinds = np.diff(np.append(begins, len(grams)))
    # A run seen once was followed by what is to be predicted there, and teaches nothing beside it.
    kept = totals > 1
    inside = np.repeat(kept, kinds)
    ranks = np.arange(len(grams)) - np.repeat(begins, kinds)
    many = np.flatnonzero(np.repeat(kept & (kinds > top), kinds))
    if len(many):
        by_count = many[np.lexsort((-counts[many], owners[many]))]
        # Places of a run stay together, so that its ranks are handed out again by count.
        ranks[by_count] = ranks[many]
    chosen = np.flatnonzero(inside & (ranks < top))
    runs = np.repeat(np.arange(len(begins)), kinds)[chosen]
    starts = np.concatenate([[0], np.cumsum(np.minimum(kinds, top)[kept])])
    return Order(
        length=length,
        runs=owners[begins[kept]],
        starts=starts,
        tokens=(grams[chosen] % vocab_size).astype(np.int32),
        shares=((counts[chosen] - discount) / totals[runs]).astype(np.float32),
        rest=(discount * kinds[kept] / totals[kept]).astype(np.float32),
    )


def follow(
    orders: list[Order], inputs: Array, vocab_size: int, top: int, documents: list[list[int]] | None = None
) -> tuple[Array, Array]:
    """Gives likely followers of each position, [B, T, orders · top] ids, and the share of each.

    The shares of a position add up to at most 1. A token may stand there once for each order.

    Args:
        orders: from `count`.
        inputs: token ids [B, T].
        vocab_size: as it was counted.
        top: followers of a run, as it was counted.
        documents: per row, where each document ends: nothing before a document counts in it.
    """
    rows, width = inputs.shape
    ages = np.broadcast_to(np.arange(width), inputs.shape)
    if documents is not None:
        ages = ages.copy()
        for age, ends in zip(ages, documents, strict=True):
            for start, stop in pairwise([0, *ends]):
                age[start:stop] -= start
    tokens = np.zeros((len(orders), rows * width, top), dtype=np.int64)
    shares = np.zeros((len(orders), rows * width, top), dtype=np.float32)
    left = np.ones(rows * width, dtype=np.float32)
    for at, one in enumerate(orders):
        if not len(one.runs) or width < one.length:
            continue
        asked = np.full(inputs.shape, -1, dtype=np.int64)
        asked[:, one.length - 1 :] = number(inputs, one.length, vocab_size)
        asked[ages < one.length - 1] = -1
        flat = asked.ravel()
        place = np.minimum(np.searchsorted(one.runs, flat), len(one.runs) - 1)
        hits = np.flatnonzero(one.runs[place] == flat)
        place = place[hits]
        begin, stop = one.starts[place], one.starts[place + 1]
        where = begin[:, None] + np.arange(top)
        valid = where < stop[:, None]
        where = np.minimum(where, len(one.tokens) - 1)
        tokens[at, hits] = np.where(valid, one.tokens[where], 0)
        shares[at, hits] = np.where(valid, one.shares[where], 0.0) * left[hits, None]
        left[hits] *= one.rest[place]
    shape = (rows, width, len(orders) * top)
    return tuple(x.transpose(1, 0, 2).reshape(shape) for x in (tokens, shares))  # type: ignore[return-value]
