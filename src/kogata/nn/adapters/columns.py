"""A linear layer some of whose inputs' weights are changed, as one dense block: y = x Wᵀ + x[c] Δᵀ.

Source: S²FT (Yang et al. 2024, arXiv 2412.06289): a head or a channel of the feed-forward part is a run of
inputs of the layer behind it, so training it takes a narrow dense product and no mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kogata.nn.adapters._frozen import OnLinear
from kogata.nn.held import Hold, back_through, times


class Columns(OnLinear):
    """A frozen linear layer, and a change of the columns that some inputs meet.

    Args:
        base: the linear layer.
        columns: numbers of the inputs [k], rising.
    """

    def __init__(self, base: nn.Module, columns: Tensor) -> None:
        super().__init__(base)
        device = base.weight.device
        self.columns = columns.to(device=device)  # type: ignore[arg-type]
        shape = self.out_features, len(columns)
        self.change = nn.Parameter(torch.zeros(*shape, device=device))  # type: ignore[arg-type]

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Gives the changed weight [out, in]."""
        weight = self.hold.wide().detach().clone()
        return weight.index_add_(1, self.columns, self.change.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        return _Columns.apply(x, self.change, self.columns, self.hold, self.bias)


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, change: Tensor, columns: Tensor, hold: Hold, bias: Tensor | None
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        some = flat.index_select(1, columns)
        y = times(flat, hold, bias).addmm_(some, change.t())
        ctx.save_for_backward(some, change)
        ctx.columns, ctx.hold, ctx.shape = columns, hold, x.shape
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
        some, change = ctx.saved_tensors
        g = outputs[0].reshape(len(some), -1)
        gx = None
        if ctx.needs_input_grad[0]:
            gx = back_through(g, ctx.hold).index_add_(1, ctx.columns, g @ change).view(ctx.shape)
        return gx, g.t() @ some, None, None, None
