"""A linear layer some of whose single weights are changed: y = x (W + Δ)ᵀ, Δ zero but at chosen places.

Source: static masks by mean gradient (arXiv 2412.13488); SHiRA (Bhardwaj et al. 2024, arXiv 2406.13175).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kogata.nn.adapters._frozen import OnLinear
from kogata.nn.held import Plain, back_through, times
from kogata.nn.products import factor, product


class Scattered(OnLinear):
    """A frozen linear layer, and changes of some of its weights.

    Args:
        base: the linear layer.
        count: how many weights are changed.
    """

    def __init__(self, base: nn.Module, count: int) -> None:
        super().__init__(base)
        self.values = nn.Parameter(torch.zeros(count, device=base.weight.device))  # type: ignore[arg-type]
        self.places = torch.zeros(count, dtype=torch.int32, device=base.weight.device)  # type: ignore[arg-type]
        """row · in + column of each."""
        self.score: Tensor | None = None
        """|gradient| of every weight, added up over passes while it is no None."""

    def measure(self) -> None:
        """Adds up gradients from now on instead of giving any to the values."""
        self.score = torch.zeros(self.out_features, self.in_features, device=self.values.device)

    def choose(self, pieces: Sequence[tuple[int, int]], counts: Sequence[int]) -> None:
        """Takes the places of the largest gradients, so many of each piece's rows, and forgets the rest."""
        assert self.score is not None
        found = []
        for (start, stop), count in zip(pieces, counts, strict=True):
            best = self.score[start:stop].flatten().topk(count).indices.sort().values
            found.append(best + start * self.in_features)
        self.places.copy_(torch.cat(found))
        self.score = None

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Gives the changed weight [out, in]."""
        weight = self.hold.wide().detach().clone()
        weight.view(-1).index_add_(0, self.places, self.values.detach())
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        return _Scattered.apply(x, self.values, self)


class _Scattered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, layer: Scattered) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y = times(flat, Plain(layer.merged()), layer.bias)
        ctx.save_for_backward(factor(flat))
        ctx.layer, ctx.shape = layer, x.shape
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (flat,) = ctx.saved_tensors
        layer: Scattered = ctx.layer
        g = outputs[0].reshape(len(flat), -1)
        whole, gv = product(factor(g).t(), flat), None
        if layer.score is None:
            gv = whole.view(-1).index_select(0, layer.places)
        else:
            layer.score.add_(whole.abs_())
        gx = back_through(g, Plain(layer.merged())).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return gx, gv, None
