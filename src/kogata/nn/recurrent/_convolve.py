"""Causal depthwise convolution over few tokens, as passes over memory in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kogata.nn.place import Place


def convolve(x: Tensor, weight: Tensor, place: Place, before: Tensor | None = None) -> Tensor:
    """Computes y_t = Σ_j weight[:, -1 - j] · x_{t-j}, within each document.

    Args:
        x: [B, T, C].
        weight: [C, 1, K]; the last tap is of the token itself.
        place: its documents are kept apart.
        before: the K - 1 inputs before x, [B, K - 1, C]; None: zeros.
    """
    taps = weight[:, 0].t()
    if before is not None:
        whole = torch.cat([before, x], 1)
        return _Convolution.apply(whole, taps, None)[:, before.shape[1] :]
    return _Convolution.apply(x, taps, _starts(place, x))


def past_inputs(x: Tensor, size: int, state: Any) -> Tensor | None:
    """Gives the size - 1 inputs before x that a state remembers, and lets it remember the last ones now."""
    if state is None:
        return None
    past = state.tensors.get("inputs")
    if past is None:
        past = x.new_zeros(x.shape[0], size - 1, x.shape[2])
    state.tensors["inputs"] = torch.cat([past, x[:, 1 - size :]], 1)[:, 1 - size :].clone()
    state.length += x.shape[1]
    return past


def _starts(place: Place, x: Tensor) -> Tensor | None:
    """Gives each token's distance from its document's start, [B, T, 1]."""
    if place.documents is None:
        return None
    rows = [
        torch.cat([torch.arange(end - start) for start, end in place.pieces(row)])
        for row in range(len(place.documents))
    ]
    return torch.stack(rows)[..., None].to(x.device)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, starts: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, taps, starts)
        size = len(taps)
        y = x * taps[size - 1]
        for back in range(1, min(size, x.shape[1])):
            earlier = x[:, :-back]
            if starts is not None:
                earlier = earlier * (starts[:, back:] >= back)
            y[:, back:].addcmul_(earlier, taps[size - 1 - back])
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        x, taps, starts = ctx.saved_tensors
        g = outputs[0]
        size = len(taps)
        gx = g * taps[size - 1]
        gw = torch.zeros_like(taps)
        gw[size - 1] = (g * x).sum((0, 1))
        for back in range(1, min(size, x.shape[1])):
            later = g[:, back:]
            if starts is not None:
                later = later * (starts[:, back:] >= back)
            gx[:, :-back].addcmul_(later, taps[size - 1 - back])
            gw[size - 1 - back] = (later * x[:, :-back]).sum((0, 1))
        return gx, gw, None
