"""Examples as rows of token ids with loss weights, and the sampler that lays whole rows end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kogata.engine.finetune_costs import AHEAD_TOKENS
from kogata.engine.sampler import Batch, StepBatch, shuffled

LEAST_SHARED = 8
"""Inputs that rows must begin with in common for these to be computed once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows of some steps that follow each other, which frozen layers may take at once."""

    of: Rows
    rows: tuple[int, ...]
    again: tuple[bool, ...]
    """Whether the row was taken in an earlier pass through the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch(Batch):
    """Rows laid end to end: inputs, targets and weights are [1, N].

    What all rows begin with, and none learns, lies there once: `documents` says where each row ends.
    """

    rows: tuple[int, ...]
    """The number of each row, in order."""
    again: tuple[bool, ...]
    """Whether the row was taken in an earlier pass through the data."""
    shared: int = 0
    """Inputs that all rows begin with, laid out in the first one alone."""
    block: Block | None = None
    """The steps around this one; None: each goes through frozen layers by itself."""


class Rows:
    """Rows of ids and weights in two flat arrays.

    Of each row only what decides a trained token is kept as input: what stands behind the last trained token
    is cut off, and the last token is no input.

    Args:
        rendered: (ids, weights) of each row; `weights[i]` is what predicting `ids[i]` counts.
    """

    def __init__(self, rendered: Iterable[tuple[Sequence[int], Sequence[float]]]) -> None:
        ids: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        whole: list[int] = []
        for row, counts in rendered:
            share = np.asarray(counts, dtype=np.float32)
            trained = np.flatnonzero(share[1:])
            assert len(trained), "a row without a trained token has no place here"
            stop = int(trained[-1]) + 2
            ids.append(np.asarray(row[:stop], dtype=np.int32))
            weights.append(share[1:stop])
            whole.append(len(row))
        self.ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
        self.weights = np.concatenate(weights) if weights else np.zeros(0, dtype=np.float32)
        self.offsets = np.cumsum([0, *map(len, ids)])
        self.whole = np.asarray(whole, dtype=np.int64)
        """Tokens of each row as it was rendered."""
        self.untrained = np.asarray([int(np.flatnonzero(share)[0]) for share in weights], dtype=np.int64)
        """Inputs of each row before the first that decides a trained token."""

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.whole.sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.whole.max()) if len(self.whole) else 0

    def inputs(self, row: int) -> int:
        """Counts a row's inputs."""
        return int(self.offsets[row + 1] - self.offsets[row]) - 1

    def weight(self, row: int) -> float:
        """Adds up what a row's tokens count."""
        start = int(self.offsets[row]) - row
        return float(self.weights[start : start + self.inputs(row)].sum(dtype=np.float64))

    def shared(self, rows: Sequence[int]) -> int:
        """Counts the inputs that some rows begin with in common, none of them deciding a trained token."""
        if len(rows) < 2:
            return 0
        first = self.ids[self.offsets[rows[0]] :][: min(int(self.untrained[row]) for row in rows)]
        for row in rows[1:]:
            differs = np.flatnonzero(first != self.ids[self.offsets[row] :][: len(first)])
            first = first[: differs[0]] if len(differs) else first
        return len(first) if len(first) >= LEAST_SHARED else 0

    def pack(
        self, rows: Sequence[int], again: Sequence[bool] | None = None, block: Block | None = None
    ) -> PackedBatch:
        """Lays rows end to end, what they begin with in common once."""
        inputs, targets, weights, ends = [], [], [], []
        shared = self.shared(rows)
        for row in rows:
            start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
            start += shared if ends else 0
            inputs.append(self.ids[start : stop - 1])
            targets.append(self.ids[start + 1 : stop])
            weights.append(self.weights[start - row : stop - row - 1])
            ends.append((ends[-1] if ends else 0) + stop - start - 1)
        return PackedBatch(
            inputs=_tensor(inputs, np.int64),
            targets=_tensor(targets, np.int64),
            weights=_tensor(weights, np.float32),
            documents=[ends],
            rows=tuple(rows),
            again=tuple(again) if again is not None else (False,) * len(rows),
            shared=shared,
            block=block,
        )

    def parts(self, rows: Sequence[int], micro: int) -> list[list[int]]:
        """Cuts a list of rows into even parts of about `micro` inputs at most, one row at least."""
        total = sum(self.inputs(row) for row in rows)
        wanted = max(1, -(-total // micro))
        target, found, held = total / wanted, [[]], 0
        for at, row in enumerate(rows):
            size = self.inputs(row)
            full = held + size > micro or held + size / 2 > target
            if found[-1] and full:
                found.append([])
                held = 0
            found[-1].append(at)
            held += size
        return found


def _tensor(pieces: Sequence[np.ndarray], dtype: Any) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(pieces).astype(dtype))[None]


class RowSampler:
    """Gives `batch` rows a step, every row once an epoch, in a new order each epoch.

    Args:
        rows: to train on.
        batch: rows of one optimiser step, over all processes.
        micro: input tokens of one forward pass at most (one row at least).
        seed: decides every order.
        by_length: whether a step's rows of like length go through together, for a model that pads them.
    """

    def __init__(self, rows: Rows, *, batch: int, micro: int, seed: int = 0, by_length: bool = False) -> None:
        assert len(rows), "no row to train on"
        self.by_length = by_length
        self.rows, self.batch, self.micro, self.seed = rows, batch, micro, seed
        self.taken = 0
        self.ahead = 1
        """Steps whose rows go through frozen layers together."""
        self._block: tuple[int, Block] | None = None

    def look_ahead(self) -> None:
        """Lets the rows of as many steps as are small enough go through frozen layers together.

        A block's borders follow from the place in the order alone: a run that was killed within one and
        resumed computes it whole again, and so the same.
        """
        inputs = (int(self.rows.offsets[-1]) - len(self.rows)) / len(self.rows)
        own = inputs - self.rows.shared(range(len(self.rows)))
        most = min(self.micro, AHEAD_TOKENS)
        self.ahead = max(1, int(most / (self.batch * max(1.0, own))))

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return self.taken / len(self.rows)

    def state(self) -> dict[str, Any]:
        """Gives the position as JSON values."""
        return {"taken": self.taken}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.taken = int(state["taken"])

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's rows, this process's part of them."""
        numbers = range(self.taken, self.taken + self.batch)
        self.taken += self.batch
        chosen = self.order(numbers)
        own = slice(len(chosen) * rank // world, len(chosen) * (rank + 1) // world)
        again = [number >= len(self.rows) for number in numbers]
        block = self._block_of(numbers.start) if self.ahead > 1 and world == 1 else None
        return StepBatch(
            parts=self._parts(chosen[own], again[own], block),
            count=float(sum(self.rows.weight(row) for row in chosen)),
            tokens=int(sum(self.rows.whole[row] for row in chosen)),
        )

    def order(self, numbers: Sequence[int]) -> list[int]:
        """Gives the rows at some places of the endless order."""
        size = len(self.rows)
        chosen = []
        for number in numbers:
            epoch, place = divmod(number, size)
            chosen.append(int(shuffled(np.array([place]), size, self.seed * 1_000_003 + epoch)[0]))
        return chosen

    def _block_of(self, number: int) -> Block:
        """Gives the steps around the one that begins at a place of the order."""
        size = self.ahead * self.batch
        start = number // size * size
        if self._block is None or self._block[0] != start:
            numbers = range(start, start + size)
            again = tuple(one >= len(self.rows) for one in numbers)
            self._block = start, Block(of=self.rows, rows=tuple(self.order(numbers)), again=again)
        return self._block[1]

    def _parts(self, rows: list[int], again: list[bool], block: Block | None) -> Iterator[PackedBatch]:
        if not rows:
            return
        if self.by_length:
            order = sorted(range(len(rows)), key=lambda at: self.rows.inputs(rows[at]))
            rows, again = [rows[at] for at in order], [again[at] for at in order]
        for part in self.rows.parts(rows, self.micro):
            yield self.rows.pack([rows[at] for at in part], [again[at] for at in part], block)
