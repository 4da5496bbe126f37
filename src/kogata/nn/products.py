"""Matrix products in float32, or of two factors rounded to 16 bits where the processor multiplies such.

Rounded factors are added up in float32 and what comes out is rounded to 16 bits once more, as under autocast;
it is widened at once, so that everything between products is float32. A weight that is frozen can be kept
rounded: it is the same product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from kogata.nn.shapes import bound_shapes

NARROW = torch.bfloat16
EVEN = 64
"""Whoever has another number of rows each time makes it a multiple of this: for each number of rows oneDNN
makes a product of its own and keeps its scratch, as large as the weight, in a cache of a thousand."""


class _Format:
    rounds = False


@contextmanager
def rounded_products(rounds: bool = True) -> Iterator[None]:
    """Rounds the factors of the products of a `with` block, on a processor."""
    if rounds:
        bound_shapes()
    before = _Format.rounds
    _Format.rounds = rounds
    try:
        yield
    finally:
        _Format.rounds = before


def rounds(x: Tensor | None = None) -> bool:
    """Says whether factors are rounded now; those of a tensor on a card never are here."""
    return _Format.rounds and (x is None or x.device.type == "cpu")


def factor(x: Tensor) -> Tensor:
    """Gives a tensor as a factor of `product`: rounded where factors are, else itself."""
    return x.to(NARROW) if _Format.rounds and x.device.type == "cpu" else x


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiplies two factors [N, K] and [K, M]; what comes out is float32."""
    return torch.mm(a, b).float()


_FROZEN: Any = WeakTensorKeyDictionary()
"""Frozen weights that are used over and over: their state when they were rounded, and rounded."""


def frozen_factor(weight: Tensor) -> Tensor:
    """Gives a weight as a factor; of one that is not trained the rounded form is kept beside it."""
    if weight.requires_grad or not rounds(weight):
        return factor(weight)
    found = _FROZEN.get(weight)
    if found is None or found[0] != weight._version:
        found = _FROZEN[weight] = weight._version, factor(weight)
    return found[1]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = factor(x.reshape(-1, x.shape[-1]))
        y = product(flat, factor(weight).t())
        ctx.shape = x.shape
        ctx.save_for_backward(flat if ctx.needs_input_grad[1] else x.new_empty(0), weight)
        y = y if bias is None else y.add_(bias)
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        wide = outputs[0].reshape(-1, weight.shape[0])
        g = factor(wide)
        gx = product(g, factor(weight)).view(ctx.shape) if need_x else None
        return gx, product(g.t(), flat) if need_weight else None, wide.sum(0) if need_bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes x · weightᵀ + bias for x [..., in], with rounded factors where these are asked for."""
    if rounds(x):
        return _Linear.apply(x, weight, bias)
    return nn.functional.linear(x, weight, bias)


def through(layer: nn.Module, x: Tensor) -> Tensor:
    """Applies a layer to x [..., in]; a plain linear one with rounded factors where these are asked for."""
    if rounds(x) and type(layer) is nn.Linear:
        return linear(x, layer.weight, layer.bias)
    return layer(x)
