"""contrastive: the encoder learns to put texts of one label together; then logistic regression."""

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
LEAST_PER_CLASS, MOST_PER_CLASS = 2, 64
STEPS_PER_CLASS = 4
LEAST_STEPS, MOST_STEPS = 40, 300
TRAINING_SHARE = 0.85


class Settings(VariantSettings):
    """Contrastive tuning for few rows a label: texts of one label are drawn together, others pushed apart.

    As SetFit does, but with every pair of a batch at once instead of one pair at a time: a batch of 64 texts
    is encoded once and holds two thousand pairs. A logistic regression over the new vectors follows.

    Source: Tunstall et al. 2022 (SetFit, arXiv 2209.11055); Khosla et al. 2020 (arXiv 2004.11362).
    """

    steps: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="optimiser steps; auto: four for each label, from 40 to 300"
    )
    lr: Annotated[float, Field(gt=0, le=1)] = Field(default=5e-5, description="peak learning rate")
    batch: int = Field(default=64, ge=4, le=4096, description="texts of one step, two or more of each label")
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="how sharply near texts are told apart; smaller is sharper"
    )
    layers: Literal["auto", "all"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="upper layers that are trained; auto: every layer; all: the embedding tables too",
    )
    warmup: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto", description="steps over which the learning rate rises; auto: a tenth"
    )


def suits(size: Size) -> str | None:
    """Says why `auto` leaves it out: one row a label, or plenty."""
    if size.per_class < LEAST_PER_CLASS:
        return f"fewer than {LEAST_PER_CLASS} rows a label"
    return None if size.per_class <= MOST_PER_CLASS else f"more than {MOST_PER_CLASS} rows a label"


def steps_of(settings: Settings, classes: int) -> int:
    """Counts the optimiser steps."""
    if settings.steps != "auto":
        return settings.steps
    return min(MOST_STEPS, max(LEAST_STEPS, STEPS_PER_CLASS * classes))


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts the steps, and the probe that follows."""
    from kogata.engine.classify._costs import beside_probe

    return beside_probe(settings, size, machine, steps_of(settings, size.classes))


def fit(settings: Settings, task: Task, bench: Bench) -> EncoderClassifier:
    """Trains the encoder, then fits the regression over its vectors."""
    from kogata.engine.classify import probe
    from kogata.engine.classify._model import fit_head
    from kogata.engine.classify._tuning import Contrasting, LabelSampler, Trainee, run

    encoder = task.workshop.encoder.copy()
    layers = None if settings.layers == "all" else settings.layers
    rows = encoder.rows(task.texts)
    trainee = Trainee(encoder, rows, encoder.config.num_hidden_layers if layers == "auto" else layers)
    steps = steps_of(settings, task.classes)
    warmup = steps // 10 if settings.warmup == "auto" else settings.warmup
    outcome = run(
        trainee,
        None,
        Contrasting(trainee, settings.temperature),
        LabelSampler(trainee, task.targets, settings.batch, task.seed),
        lr=settings.lr,
        steps=steps,
        warmup=warmup,
        # A regression over the new vectors follows, within the same time.
        seconds=None if bench.share.seconds is None else TRAINING_SHARE * bench.share.seconds,
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
    }
    made = fit_head("contrastive", encoder, task, probe.STRENGTHS, bench, training)
    made.outcome = outcome
    return made


def steps_taken(settings: Settings, training: dict[str, object]) -> Settings:
    """Gives the settings that replay a training without a clock."""
    return settings.model_copy(update={"steps": training["steps"], "warmup": training["warmup"]})


def load(folder: Path) -> EncoderClassifier:
    """Loads one from its folder."""
    from kogata.engine.classify._model import EncoderClassifier

    return EncoderClassifier.load(folder)  # type: ignore[return-value]
