"""Ungated feed-forward with a squared ReLU: down(relu(up x)²)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.linear import linear
from kogata.nn.spec import ModelSpec


class FeedForward(nn.Module):
    """Works on each token. Linear layers: `up` and `down`."""

    outputs = ("down",)
    """Layers that write into the residual stream: they start at zero."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.up = linear(spec.width, spec.ffn_width)
        self.down = linear(spec.ffn_width, spec.width)

    def parts(self) -> dict[str, dict[str, int]]:
        """States which layers other libraries keep apart: none."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Works on x [B, T, D]."""
        return self.down(F.relu(self.up(x)).square())
