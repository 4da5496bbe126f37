"""Several sources sampled side by side, each window from one of them, by weights that a policy may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from kogata.core.variants import Choice
from kogata.engine.sampler import Batch, StepBatch, WindowSampler, batches, turn_at
from kogata.engine.supply import Supply

DIGITS = 4
"""Of the weights in metrics rows."""


class Policy(Protocol):
    """Says how much of each source is sampled next."""

    learns: bool
    """Whether it is told the losses."""

    def weights(self, progress: float) -> list[float]:
        """Gives the weights, adding up to 1."""
        ...

    def learn(self, losses: Sequence[float | None]) -> None:
        """Is given each source's mean loss in the step just taken; None of one that had no row."""
        ...

    def state(self) -> dict[str, Any]:
        """Gives what a resumed run needs, as JSON values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        ...


class Mixture:
    """Samples from several sources by a policy's weights.

    A step's rows are split by the weights with what was rounded off carried over, so that no chance is in
    it. A source that was seen `most_epochs` times has run out: its weight goes to the others, until all have.

    Args:
        names: of the sources.
        grid: for each phase of training (windows of one length) the sampler of each source.
        ends: share of training at which each phase but the last ends.
        policy: gives the weights.
        most_epochs: how often a source is seen at most.
    """

    def __init__(
        self,
        names: Sequence[str],
        grid: Sequence[Sequence[WindowSampler]],
        ends: Sequence[float],
        policy: Policy,
        most_epochs: float,
    ) -> None:
        self.names, self.grid, self.ends = list(names), [list(row) for row in grid], list(ends)
        self.policy, self.most_epochs = policy, most_epochs
        self.credit = [0.0] * len(self.names)
        self.ran_out: list[str] = []
        self._weights = [0.0] * len(self.names)
        self._counts = [0] * len(self.names)
        self._context = self.grid[0][0].context

    @property
    def epochs(self) -> float:
        """How often the data was seen so far, sources weighed by their size."""
        sizes = [sampler.tokens for sampler in self.grid[0]]
        return sum(e * size for e, size in zip(self.source_epochs(), sizes, strict=True)) / sum(sizes)

    @property
    def context(self) -> int:
        """Targets of a row of the batch taken last."""
        return self._context

    def source_epochs(self) -> list[float]:
        """Gives how often each source was seen so far."""
        return [sum(row[i].epochs for row in self.grid) for i in range(len(self.names))]

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        samplers = self.grid[turn_at(self.ends, progress)]
        rows, context = samplers[0].batch, samplers[0].context
        self._context = context
        self._weights = self._open(self.policy.weights(progress))
        self._counts = self._allot(rows)
        begins = [sampler.taken for sampler in samplers]
        for sampler, count in zip(samplers, self._counts, strict=True):
            sampler.taken += count
        bounds = np.cumsum([0, *self._counts]).tolist()

        def read(first: int, last: int) -> np.ndarray:
            pieces: list[np.ndarray] = []
            for i, sampler in enumerate(samplers):
                start, stop = max(first, bounds[i]), min(last, bounds[i + 1])
                if start < stop:
                    at = begins[i] - bounds[i]
                    pieces.append(sampler.read_windows(at + start, at + stop))
            return np.concatenate(pieces)

        first, last = rows * rank // world, rows * (rank + 1) // world
        learns = self.policy.learns
        parts: Iterator[Batch] = batches(
            read, first, last, micro=samplers[0].micro, device=samplers[0].device, losses=learns
        )
        count = rows * context
        return StepBatch(
            parts=parts, count=float(count), tokens=count, rows=rows if learns else 0, first=first
        )

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        for row in self.grid:
            for sampler in row:
                sampler.resize(times)

    def _open(self, weights: Sequence[float]) -> list[float]:
        """Leaves out the sources that have run out, unless all have."""
        seen = self.source_epochs()
        kept = [w if e < self.most_epochs else 0.0 for w, e in zip(weights, seen, strict=True)]
        total = sum(kept)
        if total <= 0:
            return list(weights)
        for name, before, after in zip(self.names, weights, kept, strict=True):
            if before > 0 and after == 0 and name not in self.ran_out:
                self.ran_out.append(name)
        return [w / total for w in kept]

    def _allot(self, rows: int) -> list[int]:
        wanted = [c + w * rows for c, w in zip(self.credit, self._weights, strict=True)]
        counts = [max(0, int(w)) for w in wanted]
        order = sorted(range(len(counts)), key=lambda i: (counts[i] - wanted[i], i))
        short = rows - sum(counts)
        for i in order[: max(0, short)]:
            counts[i] += 1
        for i in reversed(order):
            # Credit from before may ask for a row too many in all: it is taken from the least due.
            while short < 0 and counts[i] > 0:
                counts[i] -= 1
                short += 1
        self.credit = [w - c for w, c in zip(wanted, counts, strict=True)]
        return counts

    def learn(self, losses: Sequence[float]) -> None:
        """Tells the policy each source's mean loss."""
        means: list[float | None] = []
        at = 0
        for count in self._counts:
            means.append(sum(losses[at : at + count]) / count if count else None)
            at += count
        self.policy.learn(means)

    def row(self) -> dict[str, Any]:
        """Gives the weights of the step just taken."""
        return {"mixture": {n: round(w, DIGITS) for n, w in zip(self.names, self._weights, strict=True)}}

    def record(self) -> dict[str, Any]:
        """Gives how often each source was seen, and which have run out."""
        seen = {n: round(e, DIGITS) for n, e in zip(self.names, self.source_epochs(), strict=True)}
        return {"source_epochs": seen, "ran_out": self.ran_out}

    def state(self) -> dict[str, Any]:
        """Gives positions, what is due to each source, and the policy's state."""
        return {
            "taken": [[sampler.taken for sampler in row] for row in self.grid],
            "credit": self.credit,
            "ran_out": self.ran_out,
            "policy": self.policy.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        for row, taken in zip(self.grid, state["taken"], strict=True):
            for sampler, count in zip(row, taken, strict=True):
                sampler.taken = int(count)
        self.credit, self.ran_out = list(state["credit"]), list(state["ran_out"])
        self.policy.load(state["policy"])


def mixture(supply: Supply, curriculum: Choice, policy: Policy, most_epochs: float) -> Mixture:
    """Makes the sampler of several sources; the curriculum says how long the windows are when.

    Raises:
        RecipeError: the tokens know no sources.
        DataError: a source fills no window.
    """
    contexts, shares = curriculum.variant.lengths(supply.context, curriculum.settings)
    documents = supply.documents_by_source()
    grid = [
        [
            supply.window_sampler(context, number * len(documents) + i, chosen)
            for i, chosen in enumerate(documents.values())
        ]
        for number, context in enumerate(contexts)
    ]
    return Mixture(list(documents), grid, np.cumsum(shares).tolist(), policy, most_epochs)
