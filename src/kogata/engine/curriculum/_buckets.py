"""Pieces of documents, sorted into buckets of one length each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kogata.engine.sampler import StepBatch, batches, shuffled
from kogata.engine.supply import Supply, read_rows


@dataclass(frozen=True)
class Bucket:
    """The pieces of one length.

    A piece's row starts at `starts`; of its targets those from `first` up to `last` count.
    """

    length: int
    starts: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def tokens(self) -> int:
        """Targets that count."""
        return int((self.last - self.first).sum())


def decompose(offsets: np.ndarray, context: int, shortest: int) -> list[Bucket]:
    """Cuts documents into pieces of power-of-two lengths, each target in exactly one.

    Args:
        offsets: where each document starts, with the final end.
        context: the longest piece; rounded down to a power of two.
        shortest: the shortest; rounded down to a power of two, and no longer than the longest.
    """
    longest = 1 << (context.bit_length() - 1)
    least = min(longest, 1 << (shortest.bit_length() - 1))
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets.astype(np.int64))
    found: list[Bucket] = []
    done = np.zeros(len(starts), dtype=np.int64)
    length = longest
    while length >= least:
        count = (lengths - done) // length
        if length < longest:
            count = np.minimum(count, 1)
        owners = np.repeat(np.arange(len(starts)), count)
        number = np.arange(len(owners)) - np.repeat(np.cumsum(count) - count, count)
        begin = starts[owners] + done[owners] + number * length
        first = np.zeros(len(begin), dtype=np.int64)
        last = np.full(len(begin), length, dtype=np.int64)
        done = done + count * length
        if length == least:
            # What is left: a whole piece that reaches back, or a short document with room behind it.
            rest = np.nonzero(lengths > done)[0]
            back = np.minimum(lengths[rest], length)
            begin = np.concatenate([begin, starts[rest] + lengths[rest] - back])
            first = np.concatenate([first, back - (lengths[rest] - done[rest])])
            last = np.concatenate([last, back])
        if len(begin):
            found.append(Bucket(length, begin, first.astype(np.int32), last.astype(np.int32)))
        length //= 2
    return found[::-1]


class Buckets:
    """Draws each step's rows from one bucket; which one follows from what is due to each.

    Args:
        supply: the tokens.
        shortest: tokens of the shortest piece.
        tilt: how much sooner short pieces come than long ones.
        cycles: how often training goes from short to long.
    """

    def __init__(self, supply: Supply, shortest: int, tilt: float, cycles: int) -> None:
        self.ids, self.device, self.seed = supply.store.ids, supply.device, supply.seed
        self.buckets = decompose(supply.store.offsets, supply.context, shortest)
        self.rows = [supply.rows(bucket.length) for bucket in self.buckets]
        self.micro = [supply.micro_rows(bucket.length) for bucket in self.buckets]
        self.sizes = [bucket.tokens for bucket in self.buckets]
        self.tilt, self.cycles = tilt, cycles
        self.taken = [0] * len(self.buckets)
        self.credit = [0.0] * len(self.buckets)
        self.turn = 0

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        seen = (t / len(b.starts) * s for t, b, s in zip(self.taken, self.buckets, self.sizes, strict=True))
        return sum(seen) / sum(self.sizes)

    def shares(self, progress: float) -> list[float]:
        """Gives each bucket's part of the tokens at a moment; over a cycle about what it holds."""
        inside = progress * self.cycles % 1.0
        middle = (len(self.buckets) - 1) / 2
        half = max(middle, 0.5)
        tilted = [
            size * math.exp(self.tilt * (i - middle) / half * (2 * inside - 1))
            for i, size in enumerate(self.sizes)
        ]
        return [part / sum(tilted) for part in tilted]

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        self.credit = [c + s for c, s in zip(self.credit, self.shares(progress), strict=True)]
        self.turn = max(range(len(self.credit)), key=lambda i: (self.credit[i], -i))
        self.credit[self.turn] -= 1.0
        turn = self.turn
        bucket, rows = self.buckets[turn], self.rows[turn]
        numbers = self._numbers(turn, rows)
        self.taken[turn] += rows
        starts, first, last = bucket.starts[numbers], bucket.first[numbers], bucket.last[numbers]
        count = int((last - first).sum())
        columns = np.arange(bucket.length)

        def weights(begin: int, end: int) -> np.ndarray:
            inside = (columns >= first[begin:end, None]) & (columns < last[begin:end, None])
            return inside.astype(np.float32)

        full = count == rows * bucket.length
        begin, end = rows * rank // world, rows * (rank + 1) // world
        parts = batches(
            lambda b, e: read_rows(self.ids, starts[b:e], bucket.length),
            begin,
            end,
            micro=self.micro[turn],
            device=self.device,
            weights=None if full else weights,
        )
        return StepBatch(parts=parts, count=float(count), tokens=rows * bucket.length)

    def _numbers(self, turn: int, rows: int) -> np.ndarray:
        """Gives the next pieces of a bucket, each epoch in an order of its own."""
        size = len(self.buckets[turn].starts)
        wanted = np.arange(self.taken[turn], self.taken[turn] + rows)
        found = np.empty(rows, dtype=np.int64)
        for epoch in range(int(wanted[0]) // size, int(wanted[-1]) // size + 1):
            here = wanted // size == epoch
            key = (self.seed * 7_919 + epoch) * 64 + turn
            found[here] = shuffled(wanted[here] - epoch * size, size, key)
        return found

    def learn(self, losses: Sequence[float]) -> None:
        """Learns nothing."""

    def row(self) -> dict[str, Any]:
        """Gives the length of the step's rows."""
        return {"context": self.buckets[self.turn].length}

    def record(self) -> dict[str, Any]:
        """Gives how many pieces of each length there are."""
        return {"pieces": {str(bucket.length): len(bucket.starts) for bucket in self.buckets}}

    def state(self) -> dict[str, Any]:
        """Gives the positions and what is due to each bucket."""
        return {"taken": self.taken, "credit": self.credit}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.taken, self.credit = list(state["taken"]), list(state["credit"])
