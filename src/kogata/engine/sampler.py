"""Windows over a store of tokens: a new order each epoch, from the seed alone, at any position at once.

Nothing is kept but a count of windows taken. The batch of a step is the same for one process or many:
each process takes its part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one forward pass works on."""

    inputs: Tensor
    """Token ids [B, T]."""
    targets: Tensor
    """The tokens to predict [B, T]."""
    weights: Tensor | None = None
    """How much each target counts; None counts each once."""
    documents: list[list[int]] | None = None
    """Per row, where each document ends; None: a row is one document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One process's part of one optimiser step's batch."""

    parts: Iterator[Batch] | Sequence[Batch]
    """Worked on one after the other, gradients added."""
    count: float
    """Targets that count, of all processes together (the sum of weights)."""
    tokens: int
    """Tokens seen, of all processes together."""


class Sampler(Protocol):
    """Gives the batches of a training run, one optimiser step at a time."""

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        ...

    def take(self, rank: int, world: int, progress: float) -> StepBatch:
        """Gives the next step's batch, this process's part; `progress` is the share of training done."""
        ...

    def state(self) -> dict[str, Any]:
        """Gives the position as JSON values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        ...


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    """Scrambles 64-bit numbers (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64((key * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def shuffled(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """Gives where each index lies in a random order of range(size), without making the order.

    A Feistel network over the next power of four, walked until it lands inside: a permutation that needs
    no memory and is the same on every machine and numpy.
    """
    if size <= 1:
        return np.zeros_like(indices)
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    todo, out = np.arange(len(indices)), indices.astype(np.uint64)
    while len(todo):
        left, right = out[todo] >> half, out[todo] & low
        for turn in range(4):
            left, right = right, left ^ (_mix(right, key * 4 + turn) & low)
        out[todo] = (left << half) | right
        todo = todo[out[todo] >= np.uint64(size)]
    return out.astype(np.int64)


class WindowSampler:
    """Cuts a stream of documents into windows of `context` tokens, each predicted from its left neighbours.

    Every epoch has its own order of documents, its own first offset and its own order of windows; each
    token is a target once an epoch (the rest of the division by the context aside).

    Args:
        ids: the tokens, one array or a list of shards, documents end to end, each with its end token.
        offsets: where each document starts, with the final end.
        context: tokens of a window.
        batch: windows of one optimiser step, over all processes.
        micro: windows of one forward pass at most.
        seed: decides every order.
        device: where the batches go.
    """

    def __init__(
        self,
        ids: np.ndarray | Sequence[np.ndarray],
        offsets: np.ndarray,
        *,
        context: int,
        batch: int,
        micro: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.shards = [ids] if isinstance(ids, np.ndarray) else list(ids)
        self.bounds = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self.offsets = np.asarray(offsets, dtype=np.int64)
        self.tokens = int(self.offsets[-1])
        assert self.tokens > context, f"{self.tokens} tokens hold no window of {context}"
        self.context, self.batch, self.micro = context, batch, micro or batch
        self.seed, self.device = seed, device
        self.windows = self.tokens // context
        """Windows of an epoch."""
        self.taken = 0
        self._epoch = -1

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return self.taken / self.windows

    def state(self) -> dict[str, Any]:
        """Gives the position as JSON values."""
        return {"taken": self.taken}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.taken = int(state["taken"])

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        first = self.taken + self.batch * rank // world
        last = self.taken + self.batch * (rank + 1) // world
        self.taken += self.batch
        count = self.batch * self.context
        return StepBatch(parts=self._parts(first, last), count=float(count), tokens=count)

    def _parts(self, first: int, last: int) -> Iterator[Batch]:
        passes = max(1, -(-(last - first) // self.micro))
        for i in range(passes):
            start, stop = first + (last - first) * i // passes, first + (last - first) * (i + 1) // passes
            if start < stop:
                rows = torch.from_numpy(self.read_windows(start, stop)).to(self.device)
                yield Batch(inputs=rows[:, :-1], targets=rows[:, 1:])

    def read_windows(self, first: int, last: int) -> np.ndarray:
        """Reads windows by their number since the start of training: int64 [n, context + 1]."""
        rows = np.empty((last - first, self.context + 1), dtype=np.int64)
        numbers = np.arange(first, last)
        for epoch in range(first // self.windows, (last - 1) // self.windows + 1):
            self._begin(epoch)
            here = np.nonzero(numbers // self.windows == epoch)[0]
            places = shuffled(numbers[here] - epoch * self.windows, self.windows, self._key(epoch, 2))
            for row, place in zip(here, places, strict=True):
                self._fill(rows[row], (self._shift + int(place) * self.context) % self.tokens)
        return rows

    def _key(self, epoch: int, use: int) -> int:
        return int(_mix(np.array([epoch * 4 + use], dtype=np.uint64), self.seed)[0])

    def _begin(self, epoch: int) -> None:
        """Lays the documents in this epoch's order; the stream is a ring."""
        if epoch == self._epoch:
            return
        documents = len(self.offsets) - 1
        self._order = shuffled(np.arange(documents), documents, self._key(epoch, 0))
        lengths = self.offsets[self._order + 1] - self.offsets[self._order]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._shift = self._key(epoch, 1) % self.tokens
        self._epoch = epoch

    def _fill(self, row: np.ndarray, at: int) -> None:
        """Copies the stream from `at` into the row, document by document."""
        filled = 0
        document = int(np.searchsorted(self._starts, at, side="right")) - 1
        while filled < len(row):
            inside = at - int(self._starts[document])
            take = min(len(row) - filled, int(self._starts[document + 1]) - at)
            if take > 0:
                start = int(self.offsets[self._order[document]]) + inside
                self._copy(row[filled : filled + take], start)
                filled, at = filled + take, at + take
            document += 1
            if document == len(self._order):
                document, at = 0, 0

    def _copy(self, into: np.ndarray, start: int) -> None:
        shard = int(np.searchsorted(self.bounds, start, side="right")) - 1
        filled = 0
        while filled < len(into):
            inside = start + filled - int(self.bounds[shard])
            piece = self.shards[shard][inside : inside + len(into) - filled]
            into[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1


class RampSampler:
    """Short windows first, long ones later: early on, little is learned from far away, and short is cheap.

    Args:
        samplers: from short to long, of the same batch in tokens.
        shares: of training, that each but the last has.
    """

    def __init__(self, samplers: Sequence[WindowSampler], shares: Sequence[float]) -> None:
        assert len(shares) == len(samplers) - 1
        self.samplers, self.ends = list(samplers), np.cumsum(shares).tolist()

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return sum(sampler.epochs for sampler in self.samplers)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch from the sampler whose turn it is."""
        return self.samplers[sum(progress >= end for end in self.ends)].take(rank, world)

    def state(self) -> dict[str, Any]:
        """Gives the positions as JSON values."""
        return {str(i): sampler.state() for i, sampler in enumerate(self.samplers)}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to the positions."""
        for i, sampler in enumerate(self.samplers):
            sampler.load(state[str(i)])
