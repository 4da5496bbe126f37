"""A linear layer whose inputs or outputs are multiplied by trained factors: y = l · (x Wᵀ), W frozen.

Source: (IA)³ (Liu et al. 2022, arXiv 2205.05638, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kogata.nn.adapters._frozen import OnLinear
from kogata.nn.products import through


class Scaled(OnLinear):
    """A frozen linear layer with one factor for each input, or for each output of some pieces.

    Args:
        base: the linear layer.
        pieces: (first row, last row + 1) of each piece whose outputs are scaled; None: the inputs are.
    """

    def __init__(self, base: nn.Module, pieces: Sequence[tuple[int, int]] | None) -> None:
        super().__init__(base)
        self.pieces = pieces
        size = self.in_features if pieces is None else sum(stop - start for start, stop in pieces)
        self.factors = nn.Parameter(torch.ones(size))

    @property
    def bias(self) -> Tensor | None:
        """The bias [out] as it is added to the scaled product."""
        if self.own_bias is None or self.pieces is None:
            return self.own_bias
        return self.own_bias * self._outputs()

    def _outputs(self) -> Tensor:
        """Gives the factor of every output, [out]."""
        factors = self.factors
        rows = torch.cat([torch.arange(*piece, device=factors.device) for piece in self.pieces or ()])
        return factors.new_ones(self.out_features).index_copy(0, rows, factors)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        if self.pieces is None:
            return through(self.base, x * self.factors)
        return through(self.base, x) * self._outputs()

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Gives the scaled weight [out, in]."""
        weight = self.hold.wide().detach()
        return weight * (self.factors if self.pieces is None else self._outputs()[:, None])
