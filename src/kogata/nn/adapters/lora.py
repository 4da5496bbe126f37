"""Low-rank change of a linear layer: y = x Wᵀ + scale · (x Aᵀ) Bᵀ, W frozen.

Source: LoRA (Hu et al. 2021, arXiv 2106.09685); DoRA (Liu et al. 2024, arXiv 2402.09353): length and
direction of each output's weights apart; PiSSA (Meng et al. 2024, arXiv 2404.02948): A and B start as W's
largest parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kogata.nn.adapters._frozen import OnLinear
from kogata.nn.held import Hold, factor_of
from kogata.nn.products import factor, product


class LowRank(OnLinear):
    """A linear layer, frozen, and a change of rank `rank` for each of its pieces.

    Fused layers (query, key and value in one) have one change per piece, as other libraries see them; the
    product with the frozen weight stays one.

    Args:
        base: the linear layer.
        pieces: (first row, last row + 1) of each piece that is changed.
        rank: of each change.
        scale: factor of the change.
        dora: whether each output's weights have a length of their own that is trained.
    """

    def __init__(
        self, base: nn.Module, pieces: Sequence[tuple[int, int]], rank: int, scale: float, dora: bool = False
    ) -> None:
        super().__init__(base)
        self.pieces, self.rank, self.scale = tuple(pieces), rank, scale
        rows = sum(stop - start for start, stop in self.pieces)
        self.a = nn.Parameter(torch.zeros(len(self.pieces) * rank, self.in_features))
        self.b = nn.Parameter(torch.zeros(rows, rank))
        self.length = nn.Parameter(torch.ones(rows)) if dora else None
        self.start: tuple[Tensor, Tensor] | None = None
        """A and B that the frozen weight was lessened by (PiSSA)."""

    @torch.no_grad()
    def begin(self, generator: torch.Generator, init: str = "uniform") -> None:
        """Sets A at random and B to zero; with `pissa` both from the weight's largest singular values."""
        if init == "pissa":
            self._principal(generator)
        else:
            bound = math.sqrt(1 / self.in_features)
            self.a.uniform_(-bound, bound, generator=generator)
            self.b.zero_()
        if self.length is not None:
            self.length.copy_(self._norms())

    @torch.no_grad()
    def _principal(self, generator: torch.Generator) -> None:
        assert isinstance(self.base, nn.Linear), "PiSSA changes the frozen weight: it must be held in float32"
        for i, at, start, stop in self.parts():
            weight = self.base.weight[start:stop]
            u, s, vh = _leading(weight, self.rank, generator)
            root = (s / self.scale).sqrt()
            self.a[i * self.rank : (i + 1) * self.rank] = root[:, None] * vh
            self.b[at : at + stop - start] = u * root
        for (start, stop), change in zip(self.pieces, self.changes(), strict=True):
            self.base.weight[start:stop] -= change
        self.start = self.a.detach().clone(), self.b.detach().clone()

    def parts(self) -> list[tuple[int, int, int, int]]:
        """Lists number, first row in B, first and last row + 1 in the layer, of each piece."""
        found, at = [], 0
        for i, (start, stop) in enumerate(self.pieces):
            found.append((i, at, start, stop))
            at += stop - start
        return found

    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """Gives A [rank, in] and B [rows, rank] of each piece."""
        r = self.rank
        return [
            (self.a[i * r : (i + 1) * r], self.b[at : at + stop - start])
            for i, at, start, stop in self.parts()
        ]

    def changes(self) -> list[Tensor]:
        """Gives scale · B A of each piece, [rows, in]."""
        return [self.scale * (b @ a) for a, b in self.factors()]

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """Computes the length of each changed output's weights."""
        weight = self.hold.wide()
        found = [
            torch.linalg.vector_norm(weight[start:stop] + change, dim=1)
            for (start, stop), change in zip(self.pieces, self.changes(), strict=True)
        ]
        return torch.cat(found)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Gives the changed weight [out, in]."""
        weight = self.hold.wide().detach().clone()
        for (start, stop), change in zip(self.pieces, self.changes(), strict=True):
            weight[start:stop] += change
        if self.length is not None:
            ratio = self.length / self._norms()
            for _, at, start, stop in self.parts():
                weight[start:stop] *= ratio[at : at + stop - start, None]
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Computes the layer for x [..., in]."""
        bias = self.bias if self.length is None else None
        y = _LowRank.apply(x, self.a, self.b, self.hold, bias, self.parts(), self.scale)
        if self.length is None:
            return y
        # The norm counts as a constant in the backward pass, as the paper has it.
        ratio = self.length / self._norms()
        whole = x.new_ones(self.out_features)
        rows = torch.cat([torch.arange(start, stop, device=x.device) for start, stop in self.pieces])
        y = y * whole.index_copy(0, rows, ratio)
        return y if self.bias is None else y + self.bias


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        hold: Hold,
        bias: Tensor | None,
        parts: list[tuple[int, int, int, int]],
        scale: float,
    ) -> Tensor:
        flat = factor(x.reshape(-1, x.shape[-1]))
        weight = factor_of(hold)
        if bias is None or flat.dtype != bias.dtype:
            y = product(flat, weight.t())
            y = y if bias is None else y.add_(bias)
        else:
            y = torch.addmm(bias, flat, weight.t())
        u = product(flat, factor(a).t())
        r = b.shape[1]
        for i, at, start, stop in parts:
            y[:, start:stop].addmm_(u[:, i * r : (i + 1) * r], b[at : at + stop - start].t(), alpha=scale)
        ctx.save_for_backward(flat, u, a, b)
        ctx.hold, ctx.parts, ctx.scale, ctx.shape = hold, parts, scale, x.shape
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
        flat, u, a, b = ctx.saved_tensors
        g = factor(outputs[0].reshape(len(flat), -1))
        narrow_b, narrow_u = factor(b), factor(u)
        r = b.shape[1]
        gu, gb = torch.empty_like(u), torch.empty_like(b)
        for i, at, start, stop in ctx.parts:
            one, rows = slice(i * r, (i + 1) * r), slice(at, at + stop - start)
            piece = g[:, start:stop]
            gu[:, one] = piece @ narrow_b[rows]
            gb[rows] = piece.t() @ narrow_u[:, one]
        gu.mul_(ctx.scale)
        gb.mul_(ctx.scale)
        gx = None
        if ctx.needs_input_grad[0]:
            gx = product(g, factor_of(ctx.hold)).addmm_(gu, a).view(ctx.shape)
        return gx, product(factor(gu).t(), flat), gb, None, None, None, None


def _leading(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the leading singular vectors; exact for small matrices, else by subspace iteration."""
    rows, columns = weight.shape
    if min(rows, columns) <= 4 * rank:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        return u[:, :rank], s[:rank], vh[:rank]
    q = torch.linalg.qr(weight @ torch.randn(columns, 2 * rank, generator=generator))[0]
    for _ in range(3):
        q = torch.linalg.qr(weight @ (weight.t() @ q))[0]
    u, s, vh = torch.linalg.svd(q.t() @ weight, full_matrices=False)
    return (q @ u)[:, :rank], s[:rank], vh[:rank]
