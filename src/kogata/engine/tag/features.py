"""features: each word and its neighbours, hashed, and logistic regression. Needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kogata.core.receipt import Machine
from kogata.core.stage import Bench
from kogata.core.variants import VariantSettings
from kogata.engine.classify._task import Effort, Size
from kogata.engine.tag._task import Task

if TYPE_CHECKING:
    from kogata.engine.tag._features_model import FeaturesTagger

NEEDS_ENCODER = False
STRENGTHS = (32.0, 256.0)


class Settings(VariantSettings):
    """Words, their beginnings, endings and shapes with those of their neighbours: any language, no model.

    Of Japanese the characters stand for words. The likeliest tags that make sense together are taken.

    Source: features of named-entity taggers, Ratinov and Roth 2009; Viterbi decoding.
    """


def suits(size: Size) -> str | None:
    """Says why `auto` would leave it out: never."""
    return None


def forecast(settings: Settings, size: Size, machine: Machine) -> Effort:
    """Counts the features of all units and the products of the regressions."""
    from kogata.engine.tag._costs import features_bytes, features_seconds

    return Effort(seconds=features_seconds(size, len(STRENGTHS), machine), bytes=features_bytes(size))


def fit(settings: Settings, task: Task, bench: Bench) -> FeaturesTagger:
    """Learns features and weights from the task's rows."""
    from kogata.engine.tag._features_model import train

    return train(STRENGTHS, task, bench)


def load(folder: Path) -> FeaturesTagger:
    """Loads one from its folder."""
    from kogata.engine.tag._features_model import FeaturesTagger

    return FeaturesTagger.load(folder)
