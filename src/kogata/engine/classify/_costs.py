"""What embedding, fitting and training an encoder take: seconds and bytes from sizes. Imports no torch."""

from __future__ import annotations

from typing import Any

from kogata.core.receipt import Machine
from kogata.engine.classify._task import Effort, Size
from kogata.engine.costs import gemm_rate

FORWARD_SHARE, TRAIN_SHARE = 0.5, 0.4
"""Rate of transformers' modules on short rows, over that of large products."""
LOAD_SECONDS = 1.0
CALL_SECONDS = 0.4e-3
"""Core-seconds per layer and pass for what does not grow with the batch."""
ADAM_SECONDS = 4.9e-9
"""Core-seconds per weight that AdamW trains."""
FIT_ROUNDS = 45
"""Passes over the rows that one regression takes, on average over a path of strengths."""
SAVE_BYTES_PER_SECOND = 250e6
AROUND_BYTES, ROW_BYTES = 70 * 2**20, 22 * 2**10
"""Of transformers, and of a row's n-grams and its share of the regressions: banking77, 616 and 8,000 rows."""
ENOUGH_ROWS = 2000
"""With more rows than this one held-out fifth chooses a regression's strength; with fewer, three folds do."""
EIGEN_FLOPS = 8e9
"""Of the eigenvectors of a symmetric matrix in double precision, on one core; ten per cube of its size."""


def forward_seconds(size: Size, machine: Machine) -> float:
    """Forecasts embedding all texts once, the encoder's loading included."""
    passes = size.tokens / 2000 + 20
    flops = 2.0 * size.body * size.tokens / (FORWARD_SHARE * gemm_rate(machine))
    return LOAD_SECONDS + flops + passes * size.layers * CALL_SECONDS


def beside_probe(settings: Any, size: Size, machine: Machine, steps: int) -> Effort:
    """Forecasts so many steps of training the encoder and the probe before or after them.

    Args:
        settings: with `batch` and `layers`.
        size: of the task.
        machine: that trains.
        steps: of the optimiser.
    """
    from kogata.engine.classify import probe

    head = probe.forecast(probe.Settings(), size, machine)
    layers = min(size.layers, settings.layers) if isinstance(settings.layers, int) else size.layers
    each = step_seconds(size, settings.batch, machine, layers, kept=layers < size.layers)
    tokens = round(steps * settings.batch * size.tokens / size.rows)
    return Effort(
        seconds=head.seconds + steps * each,
        bytes=head.bytes + training_bytes(size, settings.batch, layers),
        tokens=head.tokens + tokens,
        flops=head.flops + 6.0 * size.body * tokens,
    )


def fit_seconds(size: Size, fits: float, machine: Machine) -> float:
    """Forecasts so many logistic regressions over vectors."""
    flops = fits * FIT_ROUNDS * 4.0 * size.rows * size.width * size.classes
    other = fits * FIT_ROUNDS * (3e-4 + 1e-8 * size.rows * size.classes)
    return flops / (0.5 * gemm_rate(machine)) + other / machine.cores


def fits_of(size: Size, strengths: int) -> int:
    """Counts the regressions that choose among strengths and then fit all rows."""
    return strengths * (3 if size.rows <= ENOUGH_ROWS else 1) + 1


def step_seconds(size: Size, rows: float, machine: Machine, layers: int, kept: bool = False) -> float:
    """Forecasts one training step on so many rows.

    Args:
        size: of the task.
        rows: of a step.
        machine: its rates.
        layers: how many are trained.
        kept: the outputs below them are kept from the first epoch on.
    """
    tokens = rows * size.tokens / size.rows
    each = size.body / max(1, size.layers)
    below = 0 if kept else size.layers - layers
    flops = tokens * each * (6.0 * layers + 2.0 * below)
    calls = (2 * layers + below) * 2 * CALL_SECONDS
    return flops / (TRAIN_SHARE * gemm_rate(machine)) + calls + layers * each * ADAM_SECONDS / machine.cores


def held_bytes(size: Size) -> int:
    """Counts the weights, the vectors of all texts, one batch, and what stands around."""
    around = AROUND_BYTES + ROW_BYTES * size.rows
    return around + 4 * size.parameters + 5 * size.rows * size.width + 48 * 4096 * max(1, size.width)


def training_bytes(size: Size, rows: float, layers: int) -> int:
    """Counts a copy of the encoder, gradients, averages, a step's activations, what frozen layers gave."""
    each = size.body // max(1, size.layers)
    tokens = rows * size.tokens / size.rows
    held = tokens * layers * (34 * size.width + 30 * size.tokens / size.rows)
    below = 2 * size.tokens * size.width if layers < size.layers else 0
    return round(4 * size.parameters + 12 * layers * each + 4 * held + below)
