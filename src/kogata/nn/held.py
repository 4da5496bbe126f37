"""Frozen weights in a narrower form than they are used in: widened layer by layer, forward and backward."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


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
        return torch.nn.functional.linear(x, hold.wide(), bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        return outputs[0] @ ctx.hold.wide(), None, None


def hold_of(layer: nn.Module) -> tuple[Hold, Tensor | None]:
    """Gives a linear layer's weight as something that can be widened, and its bias."""
    if isinstance(layer, HeldLinear):
        return layer.hold, layer.bias
    assert isinstance(layer, nn.Linear), f"{type(layer).__name__} is no linear layer"
    return Plain(layer.weight), layer.bias
