"""Looks at held-out rows while a model is fine-tuned: which rows, and their loss."""

from __future__ import annotations

import math

import torch

from kogata.engine.finetune_costs import MICRO
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import Rows
from kogata.nn.packed import PackedHidden


def look_rows(heldout: Rows, most: int, micro: int = MICRO) -> list[list[int]]:
    """Chooses the held-out rows that looks read, in passes: the first ones, of `most` tokens together.

    One row is read in any case.
    """
    chosen, tokens = [], 0
    for row in range(len(heldout)):
        if chosen and tokens + heldout.inputs(row) > most:
            break
        chosen.append(row)
        tokens += heldout.inputs(row)
    return [[chosen[at] for at in part] for part in heldout.parts(chosen, micro)]


@torch.no_grad()
def heldout_loss(packed: PackedHidden, heldout: Rows, parts: list[list[int]]) -> float:
    """Computes nats per counted token of held-out rows."""
    objective = TrainedTokens(packed)
    count = sum(heldout.weight(row) for part in parts for row in part)
    return math.fsum(float(objective(heldout.pack(part), 1.0)) for part in parts) / count
