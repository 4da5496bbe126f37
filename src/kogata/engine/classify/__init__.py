"""Classifying texts: one method a file, found by the registry. A trained one is loaded and asked here.

A method is a module with `Settings`, `NEEDS_ENCODER`, `suits(size)` (why `auto` leaves it out, or None),
`forecast(settings, size, machine)`, `fit(settings, task, bench)` and `load(folder)`. Importing it imports no
torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kogata.core.errors import DataError
from kogata.core.registry import registry

if TYPE_CHECKING:
    import numpy as np

ABOUT = "classifier.json"
"""Beside the weights: which method made them, and the labels."""

Text = str | tuple[str, str]
"""A text, or a pair of texts."""


class Classifier(Protocol):
    """A trained classifier: labels, and probabilities of texts."""

    names: list[str]
    """The labels, in the order of the columns of `probabilities`."""

    def probabilities(self, texts: Sequence[Text]) -> np.ndarray:
        """Gives each text's probability of each label, float64 [n, labels]."""
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes it to a folder and gives its facts."""
        ...


def is_classifier(folder: Path) -> bool:
    """Says whether a folder, or the model in a run's folder, was made by train.classify."""
    return _place(folder) is not None


def load(folder: Path | str) -> Classifier:
    """Loads what train.classify made.

    Args:
        folder: the model's folder, or its run's.

    Raises:
        DataError: there is no classifier.
    """
    place = _place(Path(folder))
    if place is None:
        raise DataError(
            "the folder holds no classifier",
            where=str(folder),
            found=f"no {ABOUT}",
            expected="a model that train.classify made",
        )
    about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
    return registry.variant("engine.classify", about["method"]).load(place)


def predict(classifier: Classifier, texts: Sequence[Text]) -> list[tuple[str, float]]:
    """Gives each text's likeliest label and its probability."""
    found = classifier.probabilities(texts)
    best = found.argmax(1) if len(texts) else []
    return [(classifier.names[label], float(found[row, label])) for row, label in enumerate(best)]


def score_rows(classifier: Classifier, examples: Path, split: str) -> dict[str, Any]:
    """Scores a classifier on a split: accuracy and macro-F1 with standard errors, labels most often mixed up.

    Raises:
        DataError: the split holds no row, or one with a label that training never saw.
    """
    import numpy as np

    from kogata.engine.classify._scores import confused, scores
    from kogata.engine.classify._task import read_split

    rows = read_split(examples, split, classifier.names)
    if not rows.texts:
        raise DataError(f"no {split} rows to score", where=f"split {split}", found="no rows")
    targets = np.array([classifier.names.index(label) for label in rows.labels])
    guesses = classifier.probabilities(rows.texts).argmax(1)
    found = scores(targets, guesses, len(classifier.names))
    return {**found, "split": split, "confused": confused(targets, guesses, classifier.names)}


def _place(folder: Path) -> Path | None:
    return next((place for place in (folder, folder / "model") if (place / ABOUT).is_file()), None)
