"""Gated feed-forward with GELU (its tanh form): down(gelu(gate x) * (up x)), as gemma3 has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kogata.nn.ffn import swiglu


class FeedForward(swiglu.FeedForward):
    """Gates each token. Linear layers: `gate_up` (gate's rows, then up's) and `down`."""

    def forward(self, x: Tensor) -> Tensor:
        """Works on x [B, T, D]."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.gelu(gate, approximate="tanh") * up)
