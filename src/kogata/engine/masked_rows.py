"""Rows of a batch with hidden inputs, among others that are left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kogata.engine.sampler import Batch, Sampler, StepBatch, shuffled


class MaskedRows:
    """Another sampler's rows, some of them with hidden inputs, whose tokens alone are their targets.

    Which rows, and which inputs of them, follow from the number of the row and the seed: it is the same for
    any number of processes. A hidden input is predicted one place before it, as the next token is in all
    others. Such a row counts as much as one that is left as it is.

    Args:
        inner: gives the rows, each target counting once.
        share: of the rows.
        rate: of a row's inputs that are hidden; the first one never is.
        until: share of training after which all rows are left as they are.
        seed: decides which inputs.
        stand_in: the id that takes the place of hidden ones.
    """

    def __init__(
        self, inner: Any, *, share: float, rate: float, until: float, seed: int, stand_in: int
    ) -> None:
        self.inner: Any = inner
        self.share, self.rate, self.until = share, rate, until
        self.seed, self.stand_in = seed, stand_in
        self.taken = 0
        """Rows taken while some were hidden."""
        self.part = 0.0
        """Of the last step's rows that have hidden inputs."""

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return self.inner.epochs

    @property
    def context(self) -> int:
        """Targets of a row of the batch taken last."""
        return self.inner.context

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        batch = self.inner.take(rank, world, progress)
        if progress >= self.until:
            self.part = 0.0
            return batch
        rows, first = batch.tokens // self.context, self.taken
        self.taken += rows
        self.part = float(self._chosen(first, first + rows).mean())
        return replace(batch, parts=self._parts(batch.parts, first + batch.first))

    def _chosen(self, first: int, last: int) -> np.ndarray:
        """Says which rows by number are chosen: the share of them, evenly."""
        passed = np.floor(np.arange(first, last + 1) * self.share + 1e-9)
        return passed[1:] > passed[:-1]

    def _parts(self, parts: Iterable[Batch], at: int) -> Iterator[Batch]:
        for part in parts:
            chosen = self._chosen(at, at + len(part.inputs))
            numbers = at + np.flatnonzero(chosen)
            at += len(part.inputs)
            assert part.weights is None and part.documents is None, "plans refuse it"
            hide = torch.from_numpy(chosen).to(part.inputs.device)
            if not chosen.all():
                keep = ~hide
                plain = {"inputs": part.inputs[keep], "targets": part.targets[keep]} if len(numbers) else {}
                yield replace(part, **plain)
            if len(numbers):
                yield self._masked(part.inputs[hide], part.targets[hide], numbers)

    def _masked(self, inputs: torch.Tensor, targets: torch.Tensor, numbers: np.ndarray) -> Batch:
        width = inputs.shape[1]
        count = max(1, round(self.rate * (width - 1)))
        places = np.zeros(tuple(inputs.shape), dtype=bool)
        for row, number in enumerate(numbers.tolist()):
            key = self.seed * 1_000_003 + number
            places[row, 1:] = shuffled(np.arange(width - 1), width - 1, key) < count
        weights = np.zeros(places.shape, dtype=np.float32)
        weights[:, :-1] = places[:, 1:] * np.float32(width / count)
        masked = torch.from_numpy(places).to(inputs.device)
        return Batch(
            inputs=inputs.masked_fill(masked, self.stand_in),
            targets=targets,
            weights=torch.from_numpy(weights).to(inputs.device),
            masked=masked,
        )

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        self.inner.resize(times)

    def learn(self, losses: Sequence[float]) -> None:
        """Learns nothing."""

    def row(self) -> dict[str, Any]:
        """Gives the part of the step's rows that had hidden inputs."""
        return {**self._told("row"), "masked_part": round(self.part, 4)}

    def record(self) -> dict[str, Any]:
        """Gives what the inner sampler says of the whole."""
        return self._told("record")

    def _told(self, what: str) -> dict[str, Any]:
        own = getattr(self.inner, what, None)
        return {} if own is None else own()

    def state(self) -> dict[str, Any]:
        """Gives the inner sampler's state and the rows taken."""
        return {"inner": self.inner.state(), "taken": self.taken}

    def load(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        self.inner.load(state["inner"])
        self.taken = int(state["taken"])


def has_rows(sampler: Sampler) -> bool:
    """Says whether a sampler tells how long its rows are."""
    return hasattr(sampler, "context")
