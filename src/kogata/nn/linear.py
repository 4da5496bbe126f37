"""Plain torch layers whose weights are left unset: whoever builds them fills them once."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init


def linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    """Makes a linear layer."""
    return cast(nn.Linear, skip_init(nn.Linear, inputs, outputs, bias=bias))


def embedding(rows: int, width: int) -> nn.Embedding:
    """Makes an embedding."""
    return cast(nn.Embedding, skip_init(nn.Embedding, rows, width))


class ScaledEmbedding(nn.Embedding):
    """An embedding whose rows are multiplied by a constant, as gemma3 has it."""

    scale = 1.0

    def forward(self, input: Tensor) -> Tensor:
        """Looks up ids [...]."""
        return super().forward(input) * self.scale


class FactorisedEmbedding(nn.Embedding):
    """An embedding of narrow rows, widened by one matrix (ALBERT, arXiv 1909.11942, section 3.1)."""

    widen: nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """Looks up ids [...]."""
        return self.widen(super().forward(input))

    def whole(self) -> Tensor:
        """Gives the rows widened, [V, D]."""
        return self.weight @ self.widen.weight.t()

    def narrow(self, hidden: Tensor) -> Tensor:
        """Gives of vectors [..., D] what narrow rows are multiplied with: cheaper than widening all rows."""
        return F.linear(hidden, self.widen.weight.t())


def scaled_embedding(rows: int, width: int, scale: float) -> nn.Embedding:
    """Makes an embedding whose rows are multiplied by `scale`."""
    made = cast(ScaledEmbedding, skip_init(ScaledEmbedding, rows, width))
    made.scale = float(torch.tensor(scale))
    return made


def factorised_embedding(rows: int, inner: int, width: int) -> FactorisedEmbedding:
    """Makes an embedding of rows of size `inner`, widened to `width`."""
    made = cast(FactorisedEmbedding, skip_init(FactorisedEmbedding, rows, inner))
    made.widen = linear(inner, width)
    return made
