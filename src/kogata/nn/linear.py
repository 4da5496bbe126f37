"""Plain torch layers whose weights are left unset: whoever builds them fills them once."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.utils import skip_init


def linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    """Makes a linear layer."""
    return cast(nn.Linear, skip_init(nn.Linear, inputs, outputs, bias=bias))


def embedding(rows: int, width: int) -> nn.Embedding:
    """Makes an embedding."""
    return cast(nn.Embedding, skip_init(nn.Embedding, rows, width))
