"""Lets rows of high loss count more and rows of low loss less, up to a cap, so that noise is not chased.

A row's weight grows in a line with its loss, measured in deviations from the mean of the last steps, between
zero and a cap; the weights are scaled to 1 on average. The metrics tell the plain loss.

Pays when: the text is of very uneven difficulty and much of it is learned early.
Hurts when: the hard rows are damaged text: they count up to the cap.
Cost: one more product with the head for each step, about a tenth of its time with a small model.
Source: after LinUpper in Sow et al. 2025 (arXiv 2502.06733); the mean and deviation are of the last steps, so
    that parts and processes of a step agree.
Measured here: 18 s of training, five seeds, beside half_length: +0.010
[curriculum.json:table.text.loss.difference.mean:+.3f] bits per byte (95%: +0.007
[curriculum.json:table.text.loss.difference.low:+.3f] to +0.014
[curriculum.json:table.text.loss.difference.high:+.3f]), worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.variants import Choice, VariantSettings

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.engine.curriculum._ordered import Ordered
    from kogata.engine.sampler import Batch, RampSampler, Sampler, StepBatch
    from kogata.engine.supply import Supply

MEMORY = 20
"""Steps over which mean, deviation and scale are averaged."""


class Settings(VariantSettings):
    """Settings of `loss`."""

    strength: float = Field(
        default=0.5, gt=0, le=10, description="what one deviation above the mean adds to a row's weight of 1"
    )
    cap: float = Field(default=2.0, ge=1, le=100, description="the most a row counts, before scaling")


class Weighted:
    """Another sampler's rows, weighed by their losses.

    Args:
        inner: gives the rows.
        settings: as given.
    """

    def __init__(self, inner: RampSampler | Ordered, settings: Settings) -> None:
        self.inner, self.settings = inner, settings
        self.mean, self.variance, self.scale, self.steps = 0.0, 0.0, 1.0, 0
        self._spread = 0.0

    @property
    def epochs(self) -> float:
        """How often the data was seen so far."""
        return self.inner.epochs

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, its parts with room for their losses."""
        batch = self.inner.take(rank, world, progress)
        rows = batch.tokens // self.inner.context
        return replace(batch, parts=self._weighed(batch.parts), rows=rows)

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        from kogata.engine.sampler import Resizable

        assert isinstance(self.inner, Resizable), "plans refuse it where a curriculum chooses the windows"
        self.inner.resize(times)

    def _weighed(self, parts: Iterable[Batch]) -> Iterator[Batch]:
        from kogata.engine.sampler import with_losses

        for part in parts:
            yield replace(with_losses(part), weigh=self.weigh if self.steps else None)

    def weigh(self, losses: Tensor) -> Tensor:
        """Gives what rows count, [B], from their mean losses, [B]."""
        return self._raw(losses) / self.scale

    def _raw(self, losses: Any) -> Any:
        s, deviation = self.settings, math.sqrt(self.variance) + 1e-6
        return (1 + s.strength * (losses - self.mean) / deviation).clip(0.0, s.cap)

    def learn(self, losses: Sequence[float]) -> None:
        """Follows the losses' mean and deviation, and what weights average to."""
        import numpy as np

        values = np.asarray(losses, dtype=np.float64)
        self.steps += 1
        part = 1 / min(self.steps, MEMORY)
        self.mean += part * (float(values.mean()) - self.mean)
        self.variance += part * (float(((values - self.mean) ** 2).mean()) - self.variance)
        raw = self._raw(values)
        self.scale += part * (float(raw.mean()) - self.scale) if self.steps > 1 else 0.0
        self._spread = float(raw.std())

    def row(self) -> dict[str, Any]:
        """Gives how far the weights of the step were apart."""
        return self.inner.row() | {"weight_deviation": round(self._spread, 4)}

    def record(self) -> dict[str, Any]:
        """Gives what the inner sampler says of the whole."""
        return self.inner.record()

    def state(self) -> dict[str, Any]:
        """Gives the averages and the inner sampler's state."""
        averages = {name: getattr(self, name) for name in ("mean", "variance", "scale", "steps")}
        return {"inner": self.inner.state(), **averages}

    def load(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        self.inner.load(state["inner"])
        self.mean, self.variance = float(state["mean"]), float(state["variance"])
        self.scale, self.steps = float(state["scale"]), int(state["steps"])


def refuses(curriculum: Choice) -> bool:
    """Says whether a curriculum's rows have targets that do not count, so that their losses mean little."""
    return hasattr(curriculum.variant, "PARTLY_COUNTED")


def make(supply: Supply, curriculum: Choice, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    return Weighted(curriculum.variant.make(supply, curriculum.settings), settings)
