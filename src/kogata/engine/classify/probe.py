"""probe: the encoder as it is, one vector a text, and logistic regression over the vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size, Task

if TYPE_CHECKING:
    from kogata.engine.classify._model import EncoderClassifier

NEEDS_ENCODER = True
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Settings(VariantSettings):
    """Embeddings of the encoder as it is, and logistic regression over them, its strength cross-validated.

    Source: linear probes, Alain and Bengio 2016 (arXiv 1610.01644).
    """


def suits(size: Size) -> str | None:
    """Says why `auto` would leave it out: never."""
    return None


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts one forward pass over all texts and the products of the regressions."""
    from kogata.engine.classify._costs import fit_seconds, fits_of, forward_seconds, held_bytes

    fits = fits_of(size, len(STRENGTHS))
    seconds = forward_seconds(size, machine) + fit_seconds(size, fits, machine)
    flops = 2.0 * size.body * size.tokens
    return Effort(seconds=seconds, bytes=held_bytes(size), tokens=size.tokens, flops=flops)


def fit(settings: Settings, task: Task, bench: Bench) -> EncoderClassifier:
    """Embeds the texts and fits the regression."""
    from kogata.engine.classify._model import fit_head

    encoder = task.workshop.encoder
    return fit_head("probe", encoder, task, STRENGTHS, bench)


def load(folder: Path) -> EncoderClassifier:
    """Loads one from its folder."""
    from kogata.engine.classify._model import EncoderClassifier

    return EncoderClassifier.load(folder)  # type: ignore[return-value]
