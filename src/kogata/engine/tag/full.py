"""full: the encoder itself is trained on, from the probe's classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size
from kogata.engine.tag._task import Task

if TYPE_CHECKING:
    from kogata.engine.tag._encoder_model import EncoderTagger

NEEDS_ENCODER = True
LEAST_ROWS = 50
SEEN = 5000, 40_000
"""Rows that training sees: of few rows and of many."""
MOST_EPOCHS = 12


class Settings(VariantSettings):
    """Full fine-tuning: the encoder and a classifier that starts as the probe's are trained together.

    Every piece of a marked word carries its label, so that raw text can be tagged too; the first piece of a
    span is B-. With fewer `layers` the outputs of the frozen ones are computed once and kept. Of 200 rows or
    more a tenth is not learned from: it says which weights were best.

    Source: Devlin et al. 2019 (BERT); Kumar et al. 2022 (arXiv 2202.10054): probe first, then fine-tune.
    """

    layers: Literal["auto", "all"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="upper layers that are trained; auto: every layer; all: the embedding tables too",
    )
    epochs: Literal["auto"] | Annotated[float, Field(gt=0, le=1000)] = Field(
        default="auto", description="times through the training rows; auto: many for few rows, 12 at most"
    )
    steps: int | None = Field(default=None, ge=1, description="optimiser steps, in place of epochs")
    lr: Annotated[float, Field(gt=0, le=1)] = Field(
        default=2e-4, description="peak learning rate of encoder and head"
    )
    batch: int = Field(default=16, ge=1, le=4096, description="rows of one optimiser step")
    warmup: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto", description="steps over which the learning rate rises; auto: a tenth, 100 at most"
    )


def suits(size: Size) -> str | None:
    """Says why `auto` leaves it out: too few rows."""
    return None if size.rows >= LEAST_ROWS else f"fewer than {LEAST_ROWS} rows"


def steps_of(settings: Settings, rows: int) -> int:
    """Counts the optimiser steps."""
    if settings.steps is not None:
        return settings.steps
    epochs = settings.epochs
    if epochs == "auto":
        seen = min(max(SEEN[0], 4 * rows), SEEN[1])
        epochs = min(float(MOST_EPOCHS), max(1.0, seen / rows))
    return max(1, round(epochs * rows / min(settings.batch, rows)))


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts the probe that it starts from, the steps, and the looks at the rows that watch."""
    from kogata.engine.tag import _costs, probe

    first = probe.forecast(probe.Settings(), size, machine)
    watched = _costs.watched(size.rows)
    steps = steps_of(settings, size.rows - watched)
    layers = min(size.layers, settings.layers) if isinstance(settings.layers, int) else size.layers
    tokens = round(steps * settings.batch * size.tokens / size.rows)
    return Effort(
        seconds=first.seconds + _costs.training_seconds(size, steps, settings.batch, layers, machine),
        bytes=first.bytes + _costs.training_bytes(size, settings.batch, layers),
        tokens=first.tokens + tokens,
        flops=first.flops + 6.0 * size.body * tokens,
    )


def fit(settings: Settings, task: Task, bench: Bench) -> EncoderTagger:
    """Fits the probe, then trains encoder and head."""
    from kogata.engine.tag._training import train

    return train(settings, task, bench)


def steps_taken(settings: Settings, training: dict[str, object]) -> Settings:
    """Gives the settings that replay a training without a clock."""
    changes = {"steps": training["steps"], "epochs": "auto", "warmup": training["warmup"]}
    return settings.model_copy(update=changes)


def load(folder: Path) -> EncoderTagger:
    """Loads one from its folder."""
    from kogata.engine.tag._encoder_model import EncoderTagger

    return EncoderTagger.load(folder)
