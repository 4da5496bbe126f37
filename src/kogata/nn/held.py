"""Frozen weights in a narrower form than they are used in: widened layer by layer, forward and backward.

Where products round their factors to 16 bits, weights held so are multiplied as they are.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kogata.nn.products import factor, product, rounds


class Hold(Protocol):
    """Gives a weight in float32, for the moment of one product."""

    def wide(self) -> Tensor:
        """Gives the weight [out, in] in float32."""
        ...


class Plain:
    """A weight as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def wide(self) -> Tensor:
        """Gives the weight itself."""
        return self.weight


class Bfloat16:
    """Half the bytes; exact where the checkpoint was bfloat16, else rounded to 8 bits of mantissa."""

    def __init__(self, weight: Tensor) -> None:
        self.narrow = weight.detach().to(torch.bfloat16)
        self.shape, self.bytes = tuple(weight.shape), 2 * weight.numel()

    def wide(self) -> Tensor:
        """Widens."""
        return self.narrow.float()

    def rounded(self) -> Tensor:
        """Gives the weight in 16 bits, as it is held."""
        return self.narrow

    def rows(self, first: int, last: int) -> Tensor:
        """Widens some rows, all but the last dimension taken as one."""
        return self.narrow.view(-1, self.shape[-1])[first:last].float()


class Int8:
    """A quarter of the bytes: 8 bits a weight and one scale a row, rounded to nearest."""

    def __init__(self, weight: Tensor) -> None:
        weight = weight.detach()
        self.scale = weight.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
        self.narrow = (weight / self.scale).round_().to(torch.int8)
        self.shape, self.bytes = tuple(weight.shape), weight.numel() + 4 * self.scale.numel()

    def wide(self) -> Tensor:
        """Widens."""
        return self.narrow.float().mul_(self.scale)

    def rows(self, first: int, last: int) -> Tensor:
        """Widens some rows, all but the last dimension taken as one."""
        narrow = self.narrow.view(-1, self.shape[-1])[first:last]
        return narrow.float().mul_(self.scale.view(-1, 1)[first:last])


class HeldLinear(nn.Module):
    """A frozen linear layer whose weight is held in another form.

    Args:
        hold: the weight [out, in].
        bias: [out], or None.
    """

    def __init__(self, hold: Hold, bias: Tensor | None, inputs: int, outputs: int) -> None:
        super().__init__()
        self.hold, self.bias = hold, bias
        self.in_features, self.out_features = inputs, outputs

    @property
    def weight(self) -> Tensor:
        """The weight [out, in], widened."""
        return self.hold.wide()

    def forward(self, x: Tensor) -> Tensor:
        """Computes x · weightᵀ + bias for x [..., in]."""
        return _Product.apply(x, self.hold, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, hold: Hold, bias: Tensor | None) -> Tensor:
        ctx.hold = hold
        return times(x, hold, bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        return back_through(outputs[0], ctx.hold), None, None


def times(x: Tensor, hold: Hold, bias: Tensor | None) -> Tensor:
    """Computes x · weightᵀ + bias for x [..., in], in float32."""
    if not rounds(x):
        return torch.nn.functional.linear(x, hold.wide(), bias)
    y = product(factor(x.reshape(-1, x.shape[-1])), factor_of(hold).t())
    y = y if bias is None else y.add_(bias)
    return y.view(*x.shape[:-1], y.shape[1])


def back_through(g: Tensor, hold: Hold) -> Tensor:
    """Computes g · weight for g [..., out], in float32."""
    if not rounds(g):
        return g @ hold.wide()
    gx = product(factor(g.reshape(-1, g.shape[-1])), factor_of(hold))
    return gx.view(*g.shape[:-1], gx.shape[1])


def factor_of(hold: Hold) -> Tensor:
    """Gives a held weight as a factor of a product: in 16 bits where factors are rounded, else widened."""
    if not rounds():
        return hold.wide()
    rounded = getattr(hold, "rounded", None)
    return factor(hold.wide()) if rounded is None else rounded()


def hold_of(layer: nn.Module) -> tuple[Hold, Tensor | None]:
    """Gives a linear layer's weight as something that can be widened, and its bias."""
    if isinstance(layer, HeldLinear):
        return layer.hold, layer.bias
    assert isinstance(layer, nn.Linear), f"{type(layer).__name__} is no linear layer"
    return Plain(layer.weight), layer.bias
