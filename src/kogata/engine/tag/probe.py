"""probe: the encoder as it is, and logistic regression over the vectors of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size
from kogata.engine.tag._task import Task

if TYPE_CHECKING:
    from kogata.engine.tag._encoder_model import EncoderTagger

NEEDS_ENCODER = True
STRENGTHS = (3.0, 30.0)


class Settings(VariantSettings):
    """Vectors of the tokens from the encoder as it is, and logistic regression over them.

    Source: linear probes, Alain and Bengio 2016 (arXiv 1610.01644).
    """


def suits(size: Size) -> str | None:
    """Says why `auto` would leave it out: never."""
    return None


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts one forward pass over all texts and the products of the regressions."""
    from kogata.engine.tag._costs import probe_bytes, probe_seconds

    return Effort(
        seconds=probe_seconds(size, len(STRENGTHS), machine),
        bytes=probe_bytes(size),
        tokens=size.tokens,
        flops=2.0 * size.body * size.tokens,
    )


def fit(settings: Settings, task: Task, bench: Bench) -> EncoderTagger:
    """Reads the texts and fits the regression."""
    from kogata.engine.tag._encoder_model import fit_head

    return fit_head("probe", task.workshop.encoder.copy(), task, STRENGTHS, bench)


def load(folder: Path) -> EncoderTagger:
    """Loads one from its folder."""
    from kogata.engine.tag._encoder_model import EncoderTagger

    return EncoderTagger.load(folder)
