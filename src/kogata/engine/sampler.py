"""Windows over a store of tokens: a new order each epoch, from the seed alone, at any position at once.

Nothing is kept but a count of windows taken. The batch of a step is the same for one process or many:
each process takes its part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

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
    losses: Tensor | None = None
    """Filled by the objective with each target's loss in nats [B, T], where the sampler learns from them."""
    masked: Tensor | None = None
    """Inputs that are hidden [B, T]; such rows are read both ways. None: what follows is not seen."""
    weigh: Callable[[Tensor], Tensor] | None = None
    """Mean loss of each row [B] → how much each counts [B]; needs `losses`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One process's part of one optimiser step's batch."""

    parts: Iterator[Batch] | Sequence[Batch]
    """Worked on one after the other, gradients added."""
    count: float
    """What the loss is divided by: targets that count, of all processes together."""
    tokens: int
    """Tokens seen, of all processes together."""
    rows: int = 0
    """Rows of all processes together, where the sampler learns from their losses; else 0."""
    first: int = 0
    """The number of this process's first row among those of all."""


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


@runtime_checkable
class Learner(Protocol):
    """A sampler that learns from the losses of its rows, or has something to say of each step."""

    def learn(self, losses: Sequence[float]) -> None:
        """Is given the mean loss of each row of the batch taken last, the same in every process."""
        ...

    def row(self) -> dict[str, Any]:
        """Gives columns for the metrics row of the batch taken last."""
        ...

    def record(self) -> dict[str, Any]:
        """Gives what the facts of the finished training say of it."""
        ...


@runtime_checkable
class Resizable(Protocol):
    """A sampler whose steps may change their size, what is drawn and its order staying the same."""

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        ...


def mix(x: np.ndarray, key: int) -> np.ndarray:
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
            left, right = right, left ^ (mix(right, key * 4 + turn) & low)
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
        documents: the numbers of those that are read; None: all.
        apart: whether batches say where documents end, so that no token sees another document.
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
        documents: np.ndarray | None = None,
        apart: bool = False,
    ) -> None:
        self.shards = [ids] if isinstance(ids, np.ndarray) else list(ids)
        self.bounds = np.cumsum([0, *(len(shard) for shard in self.shards)])
        bounds = np.asarray(offsets, dtype=np.int64)
        self.begins, self.lengths = bounds[:-1], np.diff(bounds)
        if documents is not None:
            self.begins, self.lengths = self.begins[documents], self.lengths[documents]
        self.tokens = int(self.lengths.sum())
        assert self.tokens > context, f"{self.tokens} tokens hold no window of {context}"
        self.context, self.batch, self.micro = context, batch, micro or batch
        self.usual = batch
        self.seed, self.device, self.apart = seed, device, apart
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
        parts, mine = self._parts(first, last), self.batch * rank // world
        return StepBatch(parts=parts, count=float(count), tokens=count, first=mine)

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        self.batch = resized(self.usual, times)

    def _parts(self, first: int, last: int) -> Iterator[Batch]:
        borders = self.borders if self.apart else None
        return batches(self.read_windows, first, last, micro=self.micro, device=self.device, borders=borders)

    def read_windows(self, first: int, last: int) -> np.ndarray:
        """Reads windows by their number since the start of training: int64 [n, context + 1]."""
        rows = np.empty((last - first, self.context + 1), dtype=np.int64)
        for row, at in self._places(first, last):
            self._fill(rows[row], at)
        return rows

    def borders(self, first: int, last: int) -> list[list[int]]:
        """Says where documents end in windows by their number; the end token begins what follows it.

        So it does where text is scored: the first token of a document is predicted from it alone.
        """
        found: list[list[int]] = [[] for _ in range(last - first)]
        for row, at in self._places(first, last):
            ends = self._starts[1:] - 1
            inside: list[int] = []
            for shift in (0, self.tokens):  # The stream is a ring.
                low, high = np.searchsorted(ends + shift, [at + 1, at + self.context])
                inside += (ends[low:high] + shift - at).tolist()
            found[row] = [*inside, self.context]
        return found

    def _places(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yields the row of each window and where in the stream it begins, with its epoch's order laid."""
        numbers = np.arange(first, last)
        for epoch in range(first // self.windows, (last - 1) // self.windows + 1):
            self._begin(epoch)
            here = np.nonzero(numbers // self.windows == epoch)[0]
            places = shuffled(numbers[here] - epoch * self.windows, self.windows, self._key(epoch, 2))
            for row, place in zip(here.tolist(), places.tolist(), strict=True):
                yield row, (self._shift + place * self.context) % self.tokens

    def _key(self, epoch: int, use: int) -> int:
        return int(mix(np.array([epoch * 4 + use], dtype=np.uint64), self.seed)[0])

    def _begin(self, epoch: int) -> None:
        """Lays the documents in this epoch's order; the stream is a ring."""
        if epoch == self._epoch:
            return
        documents = len(self.begins)
        self._order = shuffled(np.arange(documents), documents, self._key(epoch, 0))
        self._starts = np.concatenate([[0], np.cumsum(self.lengths[self._order])])
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
                start = int(self.begins[self._order[document]]) + inside
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
    """Windows of one length after another: short ones first and long ones later, as a rule.

    Early on, little is learned from far away, and short is cheap.

    Args:
        samplers: from short to long, of the same batch in tokens.
        shares: of training, that each but the last has.
        columns: for each sampler, what the metrics rows of its steps say.
    """

    def __init__(
        self,
        samplers: Sequence[WindowSampler],
        shares: Sequence[float],
        columns: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        assert len(shares) == len(samplers) - 1
        self.samplers, self.ends = list(samplers), np.cumsum(shares).tolist()
        self.columns = columns or [{} for _ in samplers]
        self.turn = 0

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return sum(sampler.epochs for sampler in self.samplers)

    @property
    def context(self) -> int:
        """Targets of a row of the batch taken last."""
        return self.samplers[self.turn].context

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch from the sampler whose turn it is."""
        self.turn = turn_at(self.ends, progress)
        return self.samplers[self.turn].take(rank, world)

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        for sampler in self.samplers:
            sampler.resize(times)

    def state(self) -> dict[str, Any]:
        """Gives the positions as JSON values."""
        return {str(i): sampler.state() for i, sampler in enumerate(self.samplers)}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to the positions."""
        for i, sampler in enumerate(self.samplers):
            sampler.load(state[str(i)])

    def learn(self, losses: Sequence[float]) -> None:
        """Learns nothing."""

    def row(self) -> dict[str, Any]:
        """Gives the columns of the length whose turn it was."""
        return self.columns[self.turn]

    def record(self) -> dict[str, Any]:
        """Has nothing to say of the whole."""
        return {}


def resized(rows: int, times: float) -> int:
    """Gives the whole rows of a step that is so many times as large, at least one."""
    return max(1, int(rows * times + 1e-9))


def turn_at(ends: Sequence[float], progress: float) -> int:
    """Says which of several phases it is, given the share of training at which each but the last ends."""
    return sum(progress >= end for end in ends)


def batches(
    read: Callable[[int, int], np.ndarray],
    first: int,
    last: int,
    *,
    micro: int,
    device: str,
    weights: Callable[[int, int], np.ndarray] | None = None,
    losses: bool = False,
    borders: Callable[[int, int], list[list[int]]] | None = None,
) -> Iterator[Batch]:
    """Cuts rows into forward passes of nearly the same size and reads each when its turn comes.

    Args:
        read: (first, last) → rows [n, T + 1], int64.
        first: number of the first row.
        last: number after the last row.
        micro: rows of one forward pass at most.
        device: where the batches go.
        weights: (first, last) → how much each target counts [n, T], float32.
        losses: make room for the losses.
        borders: (first, last) → where documents end in each row, the last entry being T.
    """
    passes = max(1, -(-(last - first) // micro))
    for i in range(passes):
        start, stop = first + (last - first) * i // passes, first + (last - first) * (i + 1) // passes
        if start == stop:
            continue
        rows = torch.from_numpy(read(start, stop)).to(device)
        part = Batch(inputs=rows[:, :-1], targets=rows[:, 1:])
        ends = None if borders is None else borders(start, stop)
        if ends is not None and any(len(row) > 1 for row in ends):
            part = replace(part, documents=ends)
        if weights is not None:
            part = replace(part, weights=torch.from_numpy(weights(start, stop)).to(device))
        yield with_losses(part) if losses else part


def with_losses(part: Batch) -> Batch:
    """Makes room for the losses of a part."""
    return replace(part, losses=torch.empty(part.targets.shape, device=part.targets.device))
