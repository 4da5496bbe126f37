"""Keeps the trained weights that were best on held-out rows, and ends training when they stay the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kogata.engine.schedule import Schedule
from kogata.engine.technique import Moment, Technique

LOOKS = 8
"""Looks at the held-out rows over a run, one before the first step and one after the last beside them."""


class KeepBest(Technique):
    """Looks at the held-out loss at fixed shares of the run; at its end the best weights are put back.

    Args:
        look: computes the held-out loss.
        named: what is trained.
        patience: looks in a row without a better loss that end training; 0 never does.
    """

    name = "best"

    def __init__(self, look: Callable[[], float], named: Sequence[tuple[str, Tensor]], patience: int) -> None:
        self.look, self.named, self.patience = look, list(named), patience
        self.first = self.best = math.inf
        """The loss before the first step, and the lowest one."""
        self.last: float | None = None
        self.at = 0
        """The step the lowest loss was found after; 0: before the first."""
        self.worse, self.looks = 0, 0
        self.looked = 0
        """The step after which it was looked last."""
        self.ended_early = False
        """Whether training ended with steps still to take."""
        self.held = [tensor.detach().clone() for _, tensor in self.named]
        self._row: dict[str, Any] = {}

    @property
    def stopped(self) -> bool:
        """Whether it is time to end."""
        return 0 < self.patience <= self.worse

    def begin(self, moment: Moment) -> None:
        """Looks once before the first step."""
        if not self.looks and moment.step == 0 and math.isinf(self.first):
            self.first = self.best = self.last = self.look()

    def after_step(self, moment: Moment) -> None:
        """Looks where the next share of the run begins."""
        self._row = {}
        due = math.floor(moment.progress * LOOKS)
        if due > self.looks:
            self.looks = due
            self._take(moment.step + 1)
            self._row = {"heldout_loss": round(self.last or 0.0, 6)}

    def row(self) -> dict[str, Any]:
        """Gives the held-out loss where one was just measured."""
        return self._row

    def _take(self, step: int) -> None:
        self.last, self.looked = self.look(), step
        if self.last < self.best:
            self.best, self.at, self.worse = self.last, step, 0
            for held, (_, tensor) in zip(self.held, self.named, strict=True):
                held.copy_(tensor.detach())
        else:
            self.worse += 1

    @torch.no_grad()
    def end(self, moment: Moment) -> None:
        """Looks once more, unless it just did, and puts the best weights back."""
        if self.looked != moment.step:
            self._take(moment.step)
        if self.at != moment.step:
            for held, (_, tensor) in zip(self.held, self.named, strict=True):
                tensor.copy_(held)

    def state(self) -> dict[str, Tensor]:
        """Gives the best weights and the losses."""
        last = math.nan if self.last is None else self.last
        counts = (self.at, self.worse, self.looks, self.looked)
        numbers = [self.first, self.best, last, *map(float, counts)]
        held = {f"held.{name}": held for (name, _), held in zip(self.named, self.held, strict=True)}
        return held | {"numbers": torch.tensor(numbers, dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts them back."""
        self.first, self.best, last, *counts = state["numbers"].tolist()
        self.last = None if math.isnan(last) else last
        self.at, self.worse, self.looks, self.looked = map(int, counts)
        for (name, _), held in zip(self.named, self.held, strict=True):
            held.copy_(state[f"held.{name}"])


class UntilWorse:
    """A schedule that also ends when the held-out loss has stopped falling.

    Args:
        inner: the schedule.
        best: knows when.
    """

    def __init__(self, inner: Schedule, best: KeepBest) -> None:
        self.inner, self.best = inner, best

    def next(self, step: int) -> tuple[float, float] | None:
        """Gives (factor, share of training done); None when training is over."""
        ahead = self.inner.next(step)
        if ahead is not None and self.best.stopped:
            self.best.ended_early = True
            return None
        return ahead

    def done(self, step: int) -> None:
        """Notes that a step was taken."""
        self.inner.done(step)

    def state(self) -> dict[str, Any]:
        """Gives what a resumed run needs."""
        return self.inner.state()

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        self.inner.load(state)

    def record(self, steps: int) -> dict[str, Any]:
        """States what replays this schedule."""
        return self.inner.record(steps)
