"""How good a classifier is: accuracy and macro-F1 with standard errors, and who leads whom by how much."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

RESAMPLES = 200
"""Of the bootstrap for the standard error of macro-F1."""


def scores(targets: np.ndarray, guesses: np.ndarray, classes: int) -> dict[str, Any]:
    """Gives accuracy and macro-F1 (mean over the labels that occur), each with its standard error.

    Accuracy's is that of a share; macro-F1's comes from resampling the rows, always the same way.
    """
    n = len(targets)
    assert n, "no row to judge by"
    accuracy = float((targets == guesses).mean())
    cells, counts = np.unique(targets * classes + guesses, return_counts=True)
    chance = np.random.default_rng(0)
    drawn = chance.multinomial(n, counts / n, size=RESAMPLES)
    spread = [_macro_f1(cells, some, classes) for some in drawn]
    return {
        "accuracy": round(accuracy, 6),
        "standard_error": round(math.sqrt(accuracy * (1 - accuracy) / n), 6),
        "macro_f1": round(_macro_f1(cells, counts, classes), 6),
        "macro_f1_standard_error": round(float(np.std(spread)), 6),
        "n": n,
    }


def lead(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Gives by how much the first is more accurate on the same rows, and the standard error of that."""
    gaps = (first == targets).astype(float) - (second == targets).astype(float)
    n = len(gaps)
    return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(n)) if n > 1 else 1.0


def confused(targets: np.ndarray, guesses: np.ndarray, names: list[str], most: int = 5) -> list[Any]:
    """Lists the pairs of labels most often taken for each other: [true, guessed, rows]."""
    wrong = targets != guesses
    pairs, counts = np.unique(
        np.stack([targets[wrong], guesses[wrong]], 1).reshape(-1, 2), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:most]
    return [[names[pairs[i][0]], names[pairs[i][1]], int(counts[i])] for i in order]


def _macro_f1(cells: np.ndarray, counts: np.ndarray, classes: int) -> float:
    true, guessed = cells // classes, cells % classes
    right = np.bincount(true, np.where(true == guessed, counts, 0), classes)
    actual = np.bincount(true, counts, classes)
    claimed = np.bincount(guessed, counts, classes)
    there = actual > 0
    return float((2 * right[there] / (actual + claimed)[there]).mean())
