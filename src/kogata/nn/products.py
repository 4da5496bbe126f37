"""Matrix products in float32, or of two factors rounded to 16 bits where the processor multiplies such.

Rounded factors are added up in float32 and what comes out is rounded to 16 bits once more, as under autocast;
it is widened at once, so that everything between products is float32. A weight that is frozen can be kept
rounded: it is the same product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

NARROW = torch.bfloat16


class _Format:
    rounds = False


@contextmanager
def rounded_products(rounds: bool = True) -> Iterator[None]:
    """Rounds the factors of the products of a `with` block, on a processor."""
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
