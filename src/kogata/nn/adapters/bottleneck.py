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

from kogata.nn.adapters._frozen import OnLinear
from kogata.nn.products import linear, through


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
        return self.scale * linear(F.relu(linear(x, self.down, self.down_bias)), self.up, self.up_bias)


class Behind(OnLinear):
    """The last layer of a part, and a bottleneck of its output."""

    def __init__(self, base: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__(base)
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        y = through(self.base, x)
        return y + self.bottleneck(y)


class Entry(OnLinear):
    """The first layer of a part; it keeps what went in until the last layer asks for it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.entered: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        self.entered = x
        return through(self.base, x)


class Beside(OnLinear):
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
        return through(self.base, x) + self.bottleneck(entered)
