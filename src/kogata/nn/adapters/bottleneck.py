"""A narrow part of two small matrices that is added behind a part of a block, or beside one.

y + s · (relu(x Dᵀ + d) Uᵀ + u), with x the part's output (behind) or its input (beside).

Source: Houlsby et al. 2019 (arXiv 1902.00751, section 2.1); beside: He et al. 2022 (arXiv 2110.04366,
section 4.4).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """The narrow part; it starts without effect.

    Args:
        width: of what goes in and comes out.
        size: of what is between.
        scale: factor of what comes out.
    """

    def __init__(self, width: int, size: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(torch.zeros(size, width))
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(width, size))
        self.up_bias = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Sets the matrix that narrows at random; what comes out stays zero."""
        bound = math.sqrt(1 / self.down.shape[1])
        self.down.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Computes what is added for x [..., width]."""
        return self.scale * F.linear(F.relu(F.linear(x, self.down, self.down_bias)), self.up, self.up_bias)


class _Around(nn.Module):
    """A frozen linear layer with something around it; it cannot be written as a weight."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.in_features: int = base.in_features  # type: ignore[assignment]
        self.out_features: int = base.out_features  # type: ignore[assignment]
        for parameter in base.parameters():
            parameter.requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """The frozen weight [out, in], for whoever asks for its type and place."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias [out]."""
        return self.base.bias  # type: ignore[return-value]


class Behind(_Around):
    """The last layer of a part, and a bottleneck of its output."""

    def __init__(self, base: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__(base)
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        y = self.base(x)
        return y + self.bottleneck(y)


class Entry(_Around):
    """The first layer of a part; it keeps what went in until the last layer asks for it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.entered: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        self.entered = x
        return self.base(x)


class Beside(_Around):
    """The last layer of a part, and a bottleneck of what entered the first one."""

    def __init__(self, base: nn.Module, bottleneck: Bottleneck, entry: Entry) -> None:
        super().__init__(base)
        self.bottleneck = bottleneck
        self._entry = (entry,)
        """In a tuple: it is a module of the part already."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        (entry,) = self._entry
        entered, entry.entered = entry.entered, None
        assert entered is not None, "the part's first layer was not called"
        return self.base(x) + self.bottleneck(entered)
