"""Windows that stay the same, drawn by how hard they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kogata.core.errors import DataError
from kogata.core.variants import Choice
from kogata.engine.curriculum.half_length import Settings as HalfLength
from kogata.engine.curriculum.half_length import lengths as half_lengths
from kogata.engine.sampler import StepBatch, shuffled
from kogata.engine.supply import FixedWindows, Supply

PACES = 64
"""How often in training what may be drawn changes at most."""

Pool = tuple[float, float]
"""What may be drawn: from which to which share of the windows, the easiest first."""


class Ordered:
    """Draws windows out of a pool that changes with progress; of the pool those seen least.

    Nothing is kept of it but how many windows were drawn from which pool, one after another: a resumed run
    draws them again on paper.

    Args:
        windows: that stay the same.
        difficulty: gives each window's, when it is first needed.
        pool: progress, in steps of 1 / 64, → what may be drawn.
        rows: windows of a step.
        seed: decides the order among windows seen equally often.
        sorted_until: share of training up to which windows come strictly in order, the easiest first.
        halved_until: share of training up to which a window is trained as two rows of half its length.
    """

    def __init__(
        self,
        windows: FixedWindows,
        difficulty: Callable[[], np.ndarray],
        pool: Callable[[float], Pool],
        rows: int,
        seed: int,
        sorted_until: float = 0.0,
        halved_until: float = 0.0,
    ) -> None:
        self.windows, self._difficulty, self.pool, self.rows = windows, difficulty, pool, rows
        self.seed, self.sorted_until, self.halved_until = seed, sorted_until, halved_until
        self.context = windows.context
        """Targets of a row of the batch taken last."""
        self.history: list[list[float]] = []
        """[lowest share, highest share, in order, windows drawn], one for each pool."""
        self._ready = False
        self._now = np.zeros(0, dtype=np.int64)

    def _prepare(self) -> None:
        """Ranks the windows; equally hard ones in no order."""
        if self._ready:
            return
        self._ready = True
        count = len(self.windows)
        self._order = np.lexsort((shuffled(np.arange(count), count, self.seed), self._difficulty()))
        self._place = np.empty(count, dtype=np.float32)
        self._place[self._order] = (np.arange(count) + 0.5) / count
        self._seen = np.zeros(count, dtype=np.uint32)
        self._queue = self._order[:0]
        self._at = 0
        past, self.history = self.history, []
        for low, high, in_order, drawn in past:
            self._enter(low, high, bool(in_order))
            self._draw(int(drawn))

    @property
    def epochs(self) -> float:
        """How many windows were seen so far, by all there are."""
        return sum(drawn for *_, drawn in self.history) / len(self.windows)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        self._prepare()
        in_order = progress < self.sorted_until
        low, high = self.pool(int(progress * PACES) / PACES)
        if not self.history or self.history[-1][:3] != [low, high, in_order]:
            self._enter(low, high, in_order)
        self._now = self._draw(self.rows)
        pieces = 2 if progress < self.halved_until else 1
        self.context = self.windows.context // pieces
        parts = self.windows.parts(self._now, rank, world, pieces=pieces)
        count = self.rows * self.windows.context
        first = self.rows * pieces * rank // world
        return StepBatch(parts=parts, count=float(count), tokens=count, first=first)

    def _enter(self, low: float, high: float, in_order: bool) -> None:
        count = len(self.windows)
        # At least a step's rows, and in turn: the windows from low to high, the easiest first.
        least = min(count, self.rows)
        stop = min(count, max(round(high * count), least))
        start = max(0, min(round(low * count), stop - least))
        self._members = self._order[start:stop]
        self.history.append([low, high, in_order, 0])
        self._fill()

    def _fill(self) -> None:
        """Lines up those of the pool that were seen least: in random order, or strictly from easy to hard."""
        seen = self._seen[self._members]
        members = self._members[seen == seen.min()]
        among = np.arange(len(members))
        if not self.history[-1][2]:
            turn = len(self.history) * 1_000_003 + int(self.history[-1][3])
            among = shuffled(among, len(members), self.seed * 7_919 + turn)
        self._queue = members[np.argsort(among)]
        self._at = 0

    def _draw(self, count: int) -> np.ndarray:
        """Takes the next windows of the line, which is made anew when it ends."""
        pieces: list[np.ndarray] = []
        while count:
            if self._at == len(self._queue):
                self._fill()
            piece = self._queue[self._at : self._at + count]
            self._seen[piece] += 1
            self._at += len(piece)
            self.history[-1][3] += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return np.concatenate(pieces) if pieces else self._queue[:0]

    def learn(self, losses: Sequence[float]) -> None:
        """Learns nothing."""

    def row(self) -> dict[str, Any]:
        """Gives the mean difficulty of the step: 0 the easiest window, 1 the hardest, 0.5 as they come."""
        return {"difficulty": round(float(self._place[self._now].mean()), 4)}

    def record(self) -> dict[str, Any]:
        """Gives the share of the windows that were seen."""
        if not self.history:
            return {"seen_share": 0.0}
        self._prepare()
        return {"seen_share": round(float((self._seen > 0).mean()), 4)}

    def state(self) -> dict[str, Any]:
        """Gives what was drawn from which pool."""
        return {"history": self.history}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.history, self._ready = [list(entry) for entry in state["history"]], False


def ordered(supply: Supply, by: Choice, pool: Callable[[float], Pool], sorted_until: float = 0.0) -> Ordered:
    """Makes a run's sampler of windows by difficulty; early on they are halved, as by half_length."""
    windows = FixedWindows(supply, supply.context)
    _, shares = half_lengths(supply.context, HalfLength())
    return Ordered(
        windows,
        lambda: measured(supply, windows, by),
        pool,
        supply.rows(supply.context),
        supply.seed,
        sorted_until,
        halved_until=sum(shares) if supply.context % 2 == 0 else 0.0,
    )


def measured(supply: Supply, windows: FixedWindows, by: Choice) -> np.ndarray:
    """Measures every window's difficulty, [n]; larger is harder.

    Raises:
        DataError: a window has none.
    """
    found = np.asarray(by.variant.measure(supply, windows, by.settings), dtype=np.float64)
    if not np.isfinite(found).all():
        raise DataError(
            f"the difficulty by {by.name} is not a number everywhere",
            where=f"stage {supply.label}, curriculum",
            found=f"{int((~np.isfinite(found)).sum())} of {len(found)} windows without one",
            expected="a finite number for every window",
        )
    # Rounded, so that windows that are equally hard but for the last digits come in no order.
    found = found.astype(np.float32)
    if len(found) > 1 and float(np.ptp(found)) == 0.0:
        supply.say(f"curriculum: by {by.name} all windows are equally hard; their order is random")
    return found
