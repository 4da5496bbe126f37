"""Dropout on what mixers and feed-forward parts add to the residual stream."""

from __future__ import annotations

from torch import Tensor


def mask_like(x: Tensor, rate: float) -> Tensor | None:
    """Draws what an addition shaped like `x` is multiplied by: 0, or 1 / (1 - rate); None drops nothing."""
    if not rate:
        return None
    return x.new_empty(x.shape).bernoulli_(1 - rate).div_(1 - rate)


def dropped(x: Tensor, rate: float) -> Tensor:
    """Drops a share of the numbers and scales up the rest."""
    mask = mask_like(x, rate)
    return x if mask is None else x * mask
