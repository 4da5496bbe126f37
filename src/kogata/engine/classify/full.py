"""full: the encoder itself is trained on, from the probe's head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size, Task

if TYPE_CHECKING:
    from kogata.engine.classify._model import EncoderClassifier

NEEDS_ENCODER = True
LEAST_ROWS = 200
SEEN = 12_000, 40_000
"""Rows that training sees: of few rows and of many."""
MOST_EPOCHS = 15


class Settings(VariantSettings):
    """Full fine-tuning: the encoder's layers and a head that starts as the probe's are trained together.

    Starting from the probe's head keeps what the encoder knows. With fewer `layers` the outputs of the frozen
    ones are computed once and kept, and an epoch costs that much less.

    Source: Kumar et al. 2022 (arXiv 2202.10054): probe first, then fine-tune.
    """

    layers: Literal["auto", "all"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="upper layers that are trained; auto: every layer; all: the embedding tables too",
    )
    epochs: Literal["auto"] | Annotated[float, Field(gt=0, le=1000)] = Field(
        default="auto", description="times through the training rows; auto: many for few rows, 15 at most"
    )
    steps: int | None = Field(default=None, ge=1, description="optimiser steps, in place of epochs")
    lr: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1e-4, description="peak learning rate of encoder and head"
    )
    batch: int = Field(default=32, ge=2, le=4096, description="rows of one optimiser step")
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
    """Counts the probe that it starts from, and the steps."""
    from kogata.engine.classify._costs import beside_probe

    return beside_probe(settings, size, machine, steps_of(settings, size.rows))


def fit(settings: Settings, task: Task, bench: Bench) -> EncoderClassifier:
    """Fits the probe, then trains encoder and head."""
    from kogata.engine.classify import probe
    from kogata.engine.classify._model import EncoderClassifier, fit_head
    from kogata.engine.classify._tuning import Classifying, EpochSampler, Trainee, run

    began, limit = bench.clock.now(), bench.share.seconds
    start = fit_head("probe", task.workshop.encoder, task, probe.STRENGTHS, bench)
    import torch

    encoder = task.workshop.encoder.copy()
    layers = None if settings.layers == "all" else settings.layers
    rows = encoder.rows(task.texts)
    trainee = Trainee(encoder, rows, encoder.config.num_hidden_layers if layers == "auto" else layers)
    head = torch.nn.Linear(encoder.width, task.classes)
    with torch.no_grad():
        head.weight.copy_(start.weight)
        head.bias.copy_(start.bias)
    steps = steps_of(settings, len(task))
    warmup = min(100, steps // 10) if settings.warmup == "auto" else settings.warmup
    sampler = EpochSampler(trainee, task.targets, settings.batch, task.seed)
    outcome = run(
        trainee,
        head,
        Classifying(trainee, head),
        sampler,
        lr=settings.lr,
        steps=steps,
        warmup=warmup,
        seconds=None if limit is None else max(1.0, limit - (bench.clock.now() - began)),
        seed=task.seed,
        bench=bench,
    )
    training = {
        "steps": outcome.steps,
        "warmup": warmup,
        "epochs": round(outcome.epochs, 4),
        "tokens": outcome.tokens,
        "loss": None if outcome.loss is None else round(outcome.loss, 6),
        "lr": settings.lr,
        "batch": settings.batch,
        "layers": "all" if trainee.stack is None else len(trainee.stack.layers) - trainee.start,
    }
    weight, bias = head.weight.detach(), head.bias.detach()
    made = EncoderClassifier("full", task.names, encoder, weight, bias, training)
    made.outcome = outcome
    return made


def steps_taken(settings: Settings, training: dict[str, object]) -> Settings:
    """Gives the settings that replay a training without a clock."""
    changes = {"steps": training["steps"], "epochs": "auto", "warmup": training["warmup"]}
    return settings.model_copy(update=changes)


def load(folder: Path) -> EncoderClassifier:
    """Loads one from its folder."""
    from kogata.engine.classify._model import EncoderClassifier

    return EncoderClassifier.load(folder)  # type: ignore[return-value]
