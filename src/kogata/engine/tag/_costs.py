"""What tagging takes: seconds and bytes from sizes. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from kogata.core.receipt import Machine
from kogata.engine.classify._costs import (
    FIT_ROUNDS,
    LOAD_SECONDS,
    fit_seconds,
    fits_of,
    forward_seconds,
    step_seconds,
)
from kogata.engine.classify._costs import training_bytes as training_bytes_of
from kogata.engine.classify._task import Size

UNITS_PER_TOKEN = 0.95
"""Words and signs, or characters of Japanese, to a token."""
FEATURES = 23
"""Of a unit that are kept, on average."""
FEATURE_SECONDS = 4e-7
"""Of hashing one, in CPU time of a Zen 5 core over the rows of examples/data/tables."""
UNIT_SECONDS = 6e-6
"""Of parting a text and marking it, to a unit."""
FIT_FLOPS = 2e9
"""Of sparse products and L-BFGS on one core, same rows."""
PIECE_SECONDS = 1.2e-5
"""Of cutting a text into pieces and marking them, to a piece."""
MOST_PIECES = 40_000
"""Pieces that a regression over vectors is fitted to at most, evenly from all."""
LEAST_TO_WATCH, MOST_WATCHED = 200, 200
"""Rows of which a tenth watches, and how many watch at most."""
LOOKS = 8
"""At the rows that watch, over a training (engine/keep_best.py), besides the first and the last."""
PART_TOKENS = 4096
"""Of one pass in training, at most: what a step holds more is added up."""


def units_of(size: Size) -> float:
    """Estimates the units of all rows."""
    return UNITS_PER_TOKEN * size.tokens


def features_seconds(size: Size, strengths: int, machine: Machine) -> float:
    """Forecasts hashing the units of all rows and the regressions over them."""
    units = units_of(size)
    hashing = machine.paced(0.3 + units * (FEATURES * FEATURE_SECONDS + UNIT_SECONDS))
    features = min(131_072.0, units)
    fits = strengths + 1 if fits_of(size, 1) == 2 else 3 * strengths + 1
    each = (4.0 * units * FEATURES + 24.0 * features) * size.classes / FIT_FLOPS
    return hashing + fits * FIT_ROUNDS * each / (1 + 0.6 * (machine.cores - 1))


def features_bytes(size: Size) -> int:
    """Counts the hashes, the matrix twice, and the weights with what L-BFGS remembers of them."""
    units = units_of(size)
    return round(units * FEATURES * 60 + 4 * 24 * min(131_072.0, units) * size.classes)


def watched(rows: int) -> int:
    """Gives how many rows watch a training: a tenth, 200 at most; of few rows none."""
    return min(MOST_WATCHED, rows // 10) if rows >= LEAST_TO_WATCH else 0


def probe_seconds(size: Size, strengths: int, machine: Machine) -> float:
    """Forecasts cutting and reading all texts once, and the regressions over their pieces."""
    pieces = min(MOST_PIECES, size.tokens)
    few = replace(size, rows=max(1, round(pieces)))
    fits = fits_of(few, strengths)
    cutting = machine.paced(size.tokens * PIECE_SECONDS)
    return cutting + forward_seconds(size, machine) + fit_seconds(few, fits, machine)


def probe_bytes(size: Size) -> int:
    """Counts the encoder twice, the vectors of the pieces with their transposes, one batch, the pieces."""
    pieces = round(min(MOST_PIECES, size.tokens))
    return 8 * size.parameters + 12 * pieces * size.width + 48 * 4096 * size.width + 250 * size.tokens


def training_seconds(size: Size, steps: int, batch: int, layers: int, machine: Machine) -> float:
    """Forecasts the steps, and the looks at the rows that watch."""
    each = step_seconds(size, batch, machine, layers, kept=layers < size.layers)
    looks = (LOOKS + 2) * watched(size.rows) / size.rows
    return steps * each + looks * (forward_seconds(size, machine) - LOAD_SECONDS)


def training_bytes(size: Size, batch: int, layers: int) -> int:
    """Counts gradients, averages, the best weights, and a part's activations."""
    rows = min(batch, max(1.0, PART_TOKENS * size.rows / size.tokens))
    kept = 4 * layers * (size.body // max(1, size.layers)) if watched(size.rows) else 0
    return training_bytes_of(size, rows, layers) - 4 * size.parameters + kept
