"""Drops a random share of what each mixer and feed-forward part adds: the text is not learned by heart.

Pays when: the text is read more than about four times.
Hurts when: it is read once or twice: every step then teaches less.
Cost: a few percent of a step, for drawing what is dropped.
Source: Srivastava et al. 2014; of small language models on text read many times: nanoGPT's recipe for
    Shakespeare (0.2), and Muennighoff et al. 2023 (arXiv 2305.16264) on when reading again stops to pay.
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec

COST = 1.06
"""Of a step: two draws a layer, each as wide as the residual stream."""


class Settings(VariantSettings):
    """Settings of `dropout`."""

    rate: float = Field(default=0.1, gt=0, lt=1, description="share that is dropped")


def cost(settings: Settings, spec: ModelSpec) -> float:
    """Forecasts the time of a step over that of one that drops nothing."""
    return COST


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique."""
    return Dropout(settings.rate, decoder)


class Dropout(Technique):
    """Drops during a step's forward and backward passes alone: looks at held-out text drop nothing."""

    name = "dropout"

    def __init__(self, rate: float, decoder: Decoder) -> None:
        self.rate, self.decoder = rate, decoder

    def before_forward(self, moment: Moment) -> None:
        """Begins to drop."""
        self._set(self.rate)

    def gradients(self, moment: Moment) -> None:
        """Stops dropping."""
        self._set(0.0)

    def end(self, moment: Moment) -> None:
        """Stops dropping."""
        self._set(0.0)

    def _set(self, rate: float) -> None:
        for block in self.decoder.layers():
            block.dropout = rate
