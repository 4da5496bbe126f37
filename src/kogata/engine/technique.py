"""Technique: something that acts during training, at points that the loop names. Imports no torch.

Those that a recipe may name lie in `engine/techniques`, one a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply
    from kogata.nn.optim import Optimiser


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where training stands, as a technique sees it."""

    step: int
    progress: float
    """Share of training done, 0 to 1."""
    factor: float
    """The schedule's."""
    model: nn.Module
    optimiser: Optimiser
    sampler: Any = None
    """What the run draws from."""
    objective: Any = None
    """What computes a batch's loss."""


class Technique:
    """Something that acts during training; overrides the points it needs."""

    name = "technique"

    def draw_from(self, sampler: Sampler, supply: Supply) -> Sampler:
        """Called once, before all else, with the run's sampler and text; gives what the run draws from."""
        return sampler

    def lr_times(self, progress: float) -> float:
        """Gives what the learning rate is multiplied by, beside the schedule's factor."""
        return 1.0

    def begin(self, moment: Moment) -> None:
        """Called once, before the first step (after a resume: with the model as it was saved)."""

    def before_forward(self, moment: Moment) -> None:
        """Called before the step's forward passes."""

    def gradients(self, moment: Moment) -> None:
        """Called when the whole step's gradients stand, before their norm and the optimiser."""

    def after_step(self, moment: Moment) -> None:
        """Called when the weights have changed."""

    def work(self) -> float:
        """Gives the step's products as a share of what the whole model takes."""
        return 1.0

    def row(self) -> dict[str, Any]:
        """Gives columns for the metrics row of the step just taken."""
        return {}

    def record(self) -> dict[str, Any]:
        """Gives what the facts of the finished training say of it."""
        return {}

    def end(self, moment: Moment) -> None:
        """Called once, after the last step, before the weights are saved."""

    def state(self) -> dict[str, Tensor]:
        """Gives what a resumed run needs."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts it back."""
