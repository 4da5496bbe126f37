"""Where the tokens of one forward pass stand: what every mixer is given beside them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """Positions and document borders of one forward pass."""

    cos: Tensor
    sin: Tensor
    """Rotary tables of these tokens, [T, 1, head_dim] or [B, T, 1, head_dim]."""
    documents: list[list[int]] | None = None
    """Per row, where each document ends (the last entry is T); None: a row is one document."""
