"""Gated feed-forward: down(silu(gate x) * (up x))."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.linear import linear
from kogata.nn.spec import ModelSpec


class FeedForward(nn.Module):
    """Gates each token. Linear layers: `gate_up` (gate's rows, then up's) and `down`."""

    outputs = ("down",)
    """Layers that write into the residual stream: they start at zero."""

    def __init__(self, spec: ModelSpec, layer: int, width: int | None = None) -> None:
        super().__init__()
        inner = width or spec.ffn_width
        self.gate_up = linear(spec.width, 2 * inner)
        self.down = linear(inner, spec.width)

    def parts(self) -> dict[str, dict[str, int]]:
        """States which layers other libraries keep apart: our layer → their names and rows, in order."""
        half = self.gate_up.out_features // 2
        return {"gate_up": {"gate_proj": half, "up_proj": half}}

    def forward(self, x: Tensor) -> Tensor:
        """Works on x [B, T, D]."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)
