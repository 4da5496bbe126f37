"""Ends with the mean of the weights that training passed through in its last share.

Pays when: the learning rate does not fall to zero, or the text is read many times.
Hurts when: the rate falls to zero, as it does by default: the last weights are then as good, and the mean of
    a long share is of older ones.
Cost: one more copy of the weights, and a look at them every few steps.
Source: Izmailov et al. 2018 (arXiv 1803.05407); of language models trained for hours: Kaddour 2022
    (arXiv 2209.14981).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec


class Settings(VariantSettings):
    """Settings of `average`."""

    share: float = Field(
        default=0.1, gt=0, le=1, description="last share of training whose weights are in it"
    )
    every: int = Field(default=8, ge=1, description="steps from one look at the weights to the next")


def held_bytes(settings: Settings, spec: ModelSpec) -> int:
    """Counts the copy of the weights."""
    return 4 * spec.parameters()


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique."""
    return Average(settings)


class Average(Technique):
    """Keeps the mean and puts it in the weights' place at the end."""

    name = "average"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.count = 0
        self.means: list[Tensor] = []

    def begin(self, moment: Moment) -> None:
        """Makes room for the mean."""
        if not self.means:
            self.means = [weight.detach().clone() for weight in moment.optimiser.parameters()]

    def after_step(self, moment: Moment) -> None:
        """Adds the weights to the mean where it is time."""
        if moment.progress < 1 - self.settings.share or moment.step % self.settings.every:
            return
        self.count += 1
        for mean, weight in zip(self.means, moment.optimiser.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 / self.count)

    def end(self, moment: Moment) -> None:
        """Puts the mean in the weights' place."""
        if self.count:
            for mean, weight in zip(self.means, moment.optimiser.parameters(), strict=True):
                weight.data.copy_(mean)

    def state(self) -> dict[str, Tensor]:
        """Gives the mean and of how many weights it is."""
        import torch

        means = {f"mean.{number}": mean for number, mean in enumerate(self.means)}
        return {"count": torch.tensor(self.count), **means}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts it back."""
        self.count = int(state["count"])
        self.means = [state[f"mean.{number}"].clone() for number in range(len(state) - 1)]
