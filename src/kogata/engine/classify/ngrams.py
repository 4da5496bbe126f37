"""ngrams: character n-grams, weighed by how rare they are, and logistic regression. Needs no model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size, Task

if TYPE_CHECKING:
    from kogata.engine.classify._ngrams_model import NgramsClassifier

NEEDS_ENCODER = False
STRENGTHS = (1.0, 4.0, 16.0, 64.0)


class Settings(VariantSettings):
    """Character n-grams with TF-IDF weights and logistic regression: any language, no model, seconds.

    Source: character n-grams for text categorisation, Cavnar and Trenkle 1994; sublinear TF-IDF.
    """

    shortest: int = Field(default=1, ge=1, le=8, description="characters of the shortest n-gram")
    longest: int = Field(default=5, ge=1, le=8, description="characters of the longest n-gram")

    @model_validator(mode="after")
    def _in_order(self) -> Settings:
        if self.longest < self.shortest:
            raise ValueError(f"longest is {self.longest}, shortest {self.shortest}: put them in order")
        return self


def suits(size: Size) -> str | None:
    """Says why `auto` would leave it out: never."""
    return None


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts the n-grams of all texts and the products of the regressions."""
    from kogata.engine.classify import _costs

    grams = size.characters * (settings.longest - settings.shortest + 1)
    fits = _costs.fits_of(size, len(STRENGTHS))
    seconds = 0.2 + grams * 4e-7
    if size.rows <= _costs.ENOUGH_ROWS:
        # In the span of the rows: as many coordinates as rows.
        seconds += 10.0 * size.rows**3 / (_costs.EIGEN_FLOPS * machine.cores)
        seconds += _costs.fit_seconds(replace(size, width=size.rows), fits, machine)
    else:
        seconds += 25 * fits * 4.0 * grams * size.classes / (2e9 * machine.cores)
    return Effort(seconds=seconds, bytes=60 * min(grams, 20 << 20) + 12 * 65_536 * size.classes)


def fit(settings: Settings, task: Task, bench: Bench) -> NgramsClassifier:
    """Learns n-grams and weights from the task's rows."""
    from kogata.engine.classify._ngrams_model import train

    return train(settings.shortest, settings.longest, STRENGTHS, task, bench)


def load(folder: Path) -> NgramsClassifier:
    """Loads one from its folder."""
    from kogata.engine.classify._ngrams_model import NgramsClassifier

    return NgramsClassifier.load(folder)
