"""RMSNorm as the family has it: its weight is the gain, or what the gain has beyond one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.spec import ModelSpec


class CentredNorm(nn.RMSNorm):
    """x / rms(x) · (1 + weight), as gemma3 and qwen3_5 have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Works on [..., size]."""
        return F.rms_norm(x, self.normalized_shape, 1.0 + self.weight, self.eps)


class AfterNorm(CentredNorm):
    """The norm after a mixer or feed-forward part; its gain starts at zero and is always trained."""


def make_norm(spec: ModelSpec, size: int) -> nn.RMSNorm:
    """Makes the norm of the spec's family over so many numbers."""
    return (CentredNorm if spec.centred_norms else nn.RMSNorm)(size, eps=spec.norm_eps)
