"""What training by hiding tokens takes: sizes of blocks, steps, and scoring at the end. Imports no torch."""

from __future__ import annotations

from kogata.core.receipt import Machine
from kogata.engine.costs import ADAM_SECONDS, gemm_rate

HELDOUT_WINDOWS = 128
"""Held-out windows scored at the end, at most."""
TRAIN_SHARE = 0.4
"""Rate of transformers' modules in training, over that of large products."""
SAVE_BYTES_PER_SECOND = 200e6


def ffn_width(family: str, width: int) -> int:
    """Gives the usual inner size of the feed-forward part: gated in ModernBERT, four widths in BERT."""
    return max(32, round(width * 8 / 3 / 64) * 64) if family == "modernbert" else 4 * width


def block_weights(family: str, width: int, inner: int | None) -> int:
    """Counts the weights of one layer's matrices."""
    matrices = 3 if family == "modernbert" else 2
    return 4 * width * width + matrices * width * (inner or ffn_width(family, width))


def after_seconds(body: int, parameters: int, windows: int, context: int, machine: Machine) -> float:
    """Forecasts scoring held-out windows and writing the model.

    Args:
        body: weights of the layers.
        parameters: all weights.
        windows: held-out windows there are.
        context: tokens of a window.
        machine: its rates.
    """
    flops = 2.0 * body * min(windows, HELDOUT_WINDOWS) * context
    return 0.5 + flops / (TRAIN_SHARE * gemm_rate(machine)) + 4 * parameters / SAVE_BYTES_PER_SECOND


def step_seconds(weights: float, parameters: int, tokens: int, machine: Machine) -> float:
    """Forecasts one optimiser step.

    Args:
        weights: of the matrices that each token goes through, the head's by the share of tokens it sees.
        parameters: all weights, which the optimiser changes.
        tokens: of a step.
        machine: its rates.
    """
    flops = 6.0 * tokens * weights
    return flops / (TRAIN_SHARE * gemm_rate(machine)) + parameters * ADAM_SECONDS / machine.cores


def tokens_per_second(weights: float, machine: Machine) -> float:
    """Forecasts the rate of training, the optimiser's own time left out."""
    return TRAIN_SHARE * gemm_rate(machine) / (6.0 * weights)
