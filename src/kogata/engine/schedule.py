"""Schedules: how far the learning rate is from its peak, by steps or by elapsed time.

A schedule by time holds the rate and begins the decay when the time left is what the decay needs. It
records the steps taken and where the decay began, so a schedule by steps replays it without a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from kogata.core.recipe import Clock


def decayed(left: float, shape: str) -> float:
    """Gives the factor when `left` (1 to 0) of the decay is still to come: `linear`, or `sqrt` (1 - √)."""
    left = min(1.0, max(0.0, left))
    return left if shape == "linear" else 1.0 - math.sqrt(1.0 - left)


class Schedule(Protocol):
    """Says before each step at what factor it runs, and whether there is one."""

    def next(self, step: int) -> tuple[float, float] | None:
        """Gives (factor, share of training done) for the step numbered from 0; None when training is over."""
        ...

    def done(self, step: int) -> None:
        """Notes that a step was taken."""
        ...

    def state(self) -> dict[str, Any]:
        """Gives what a resumed run needs, as JSON values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        ...

    def record(self, steps: int) -> dict[str, Any]:
        """States what replays this schedule without a clock: steps, warm-up, where the decay began."""
        ...


@dataclass(kw_only=True)
class StepSchedule:
    """Warm-up, hold, decay over a known number of steps.

    Args:
        steps: how many there are.
        warmup: steps of warm-up.
        decay: share of the steps over which the rate falls.
        end: factor after the decay.
        shape: `linear` or `sqrt`.
    """

    steps: int
    warmup: int = 10
    decay: float = 0.6
    end: float = 0.0
    shape: str = "linear"

    @property
    def decay_start(self) -> int:
        """The first step below the held rate."""
        return self.steps - round(self.decay * self.steps)

    def next(self, step: int) -> tuple[float, float] | None:
        """Gives (factor, share done); the last step runs just above the end factor."""
        if step >= self.steps:
            return None
        factor = 1.0
        if step >= self.decay_start:
            left = (self.steps - step) / (self.steps - self.decay_start + 1)
            factor = self.end + (1 - self.end) * decayed(left, self.shape)
        return min(factor, (step + 1) / (self.warmup + 1) if self.warmup else 1.0), step / self.steps

    def done(self, step: int) -> None:
        """Needs no note."""

    def state(self) -> dict[str, Any]:
        """Holds nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Puts nothing back."""

    def record(self, steps: int) -> dict[str, Any]:
        """States what replays this schedule."""
        return {"steps": steps, "warmup": self.warmup, "decay_start": self.decay_start}


@dataclass(kw_only=True)
class TimeSchedule:
    """Warm-up, hold, decay so that the rate reaches its end when the time does.

    Args:
        clock: knows the time left.
        reserve: seconds to keep for what comes after the last step.
        warmup: steps of warm-up; fewer where few steps fit.
        decay: share of the stepping time over which the rate falls.
        end: factor after the decay.
        shape: `linear` or `sqrt`.
        limit: seconds that training may take, where the clock is not what ends it.
        began: when those seconds began, on the clock's scale; default: now.
    """

    clock: Clock
    reserve: float = 0.0
    limit: float | None = None
    warmup: int = 10
    decay: float = 0.6
    end: float = 0.0
    shape: str = "linear"
    horizon: float | None = None
    """Seconds of stepping, set when the first step is asked for."""
    spent: float = 0.0
    """Seconds of stepping before this process (a run that was stopped and resumed)."""
    decay_start: int | None = None
    steps_seen: int = 0
    pace: float = 0.0
    """Seconds of a step, as measured."""
    began: float | None = None
    _last: float | None = field(default=None, repr=False)
    _start: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._start = self.clock.now() if self.began is None else self.began

    def left(self) -> float:
        """Gives the seconds left for steps."""
        due = self.clock.left()
        ends = [] if due is None else [due]
        if self.limit is not None:
            ends.append(self.limit - self.spent - (self.clock.now() - self._start))
        assert ends, "a schedule by time needs a deadline"
        return min(ends) - self.reserve

    def next(self, step: int) -> tuple[float, float] | None:
        """Gives (factor, share of the time gone) for the coming step; None when it would not fit."""
        left = self.left()
        if self.horizon is None:
            self.horizon = max(left, 1e-9) + self.spent
        if self._last is None:
            self._last = left
        # One step is always taken: a model that saw none would be no result of training.
        if step > 0 and (left <= 0 or (self.pace and left < 0.6 * self.pace)):
            return None
        # The step is worked on until left - pace: take the factor of its middle.
        middle = max(0.0, left - 0.5 * self.pace)
        fall = self.decay * self.horizon
        factor = 1.0
        if middle < fall:
            if self.decay_start is None:
                self.decay_start = step
            factor = self.end + (1 - self.end) * decayed(middle / fall, self.shape)
        warmup = self._warmup(left)
        return min(factor, (step + 1) / (warmup + 1)), min(1.0, max(0.0, 1 - left / self.horizon))

    def _warmup(self, left: float) -> int:
        if not self.pace or self.horizon is None:
            return self.warmup
        return min(self.warmup, int(0.1 * self.horizon / self.pace))

    def done(self, step: int) -> None:
        """Measures the step just taken: a running median-like average that one slow step does not upset."""
        left = self.left()
        assert self._last is not None
        took = max(0.0, self._last - left)
        self._last = left
        self.steps_seen += 1
        if self.steps_seen == 1:
            return  # The first step warms caches up; it says little of the others.
        self.pace = took if not self.pace else self.pace + 0.1 * (min(took, 3 * self.pace) - self.pace)

    def state(self) -> dict[str, Any]:
        """Gives what a resumed run needs."""
        gone = None if self.horizon is None else self.horizon - self.left()
        return {
            "spent": gone or 0.0,
            "decay_start": self.decay_start,
            "pace": self.pace,
            "warmup": self.warmup,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back; the horizon is then what was spent and what is left."""
        self.spent, self.pace = float(state["spent"]), float(state["pace"])
        self.decay_start, self.warmup = state["decay_start"], int(state["warmup"])

    def record(self, steps: int) -> dict[str, Any]:
        """States what replays this schedule without a clock."""
        start = steps if self.decay_start is None else self.decay_start
        return {"steps": steps, "warmup": self.warmup, "decay_start": start}
