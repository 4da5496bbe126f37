"""Samples each source by fixed weights while training: a mixture without writing one.

Pays when: several weightings are to be tried on the same encoded text.
Hurts when: weights are guessed; and a source seen often is learned by heart (see `most_epochs`).
Cost: nothing.
Source: common practice; the weightings are those of data.mix.
Measured here: 18 s of training, five seeds, beside half_length: -0.002
[curriculum.json:table.text.weighted.difference.mean:+.3f] bits per byte (95%: -0.007
[curriculum.json:table.text.weighted.difference.low:+.3f] to +0.003
[curriculum.json:table.text.weighted.difference.high:+.3f]), no difference shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from kogata.core.variants import Choice, VariantSettings
from kogata.engine.samplers import chooses_windows

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply


class Weighting(Choice, folder="engine.mix"):
    """How much of each source."""


class Settings(VariantSettings):
    """Settings of `weighted`."""

    by: Weighting = Field(
        default_factory=lambda: Weighting.of("unimax"), description="how much of each source, as in data.mix"
    )
    most_epochs: float = Field(
        default=4.0, ge=1, le=1000, description="how often a source is seen at most; then it has run out"
    )

    @field_validator("by")
    @classmethod
    def _known(cls, value: Weighting) -> Weighting:
        if hasattr(value.variant, "learn"):
            raise ValueError(f"{value.name} learns weights before training: set it as the method of data.mix")
        return value


class Fixed:
    """Weights that stay."""

    learns = False

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)

    def weights(self, progress: float) -> list[float]:
        """Gives the weights."""
        return self._weights

    def learn(self, losses: Sequence[float | None]) -> None:
        """Learns nothing."""

    def state(self) -> dict[str, Any]:
        """Holds nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Puts nothing back."""


def refuses(curriculum: Choice) -> bool:
    """Says whether a curriculum leaves nothing to choose."""
    return chooses_windows(curriculum)


def make(supply: Supply, curriculum: Choice, settings: Settings) -> Sampler:
    """Makes a run's sampler.

    Raises:
        RecipeError: the weights do not fit the sources, or there are none.
    """
    from kogata.engine.mixture import weights_of
    from kogata.engine.samplers._mixture import mixture

    supply.source_names()
    sizes = {name: int(one["tokens"]) for name, one in supply.facts["sources"].items()}
    weights = weights_of(settings.by.name, settings.by.settings, sizes)
    return mixture(supply, curriculum, Fixed(list(weights.values())), settings.most_epochs)
