"""Causal attention by batched products of 16-bit factors: full, or through a window, in blocks of queries.

A block of queries is multiplied with the keys that any of them may see; a kernel turns the scores into
weights and zero beyond. Heads that share keys are one product. Up to `WEIGHTS_KEPT` tokens a row's weights
are kept for the backward pass; of longer ones each block's are computed again, so memory grows with the
tokens alone (as in FlashAttention, arXiv 2205.14135, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kogata.nn.kernels import Kernels
from kogata.nn.products import NARROW
from kogata.nn.shapes import WEIGHTS_KEPT

BLOCK = 256
"""Queries of a block."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of rows of one length."""

    rows: int
    tokens: int
    heads: tuple[int, int, int]
    """Of queries, of keys, and each one's width."""
    window: int = 0
    """Tokens one sees at most; 0: all before it."""
    before: int = 0
    """Keys that stand before the first query."""

    @property
    def scale(self) -> float:
        """Of the scores."""
        return self.heads[2] ** -0.5

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Gives of each block its first query, the one after its last, and the same of the keys they see."""
        step = self.tokens if self.kept else BLOCK
        for start in range(0, self.tokens, step):
            stop = min(self.tokens, start + step)
            first = max(0, self.before + start - self.window + 1) if self.window else 0
            # Even places are quicker to read.
            yield start, stop, first // 32 * 32, self.before + stop

    @property
    def kept(self) -> bool:
        """Whether the weights of attention are kept for the backward pass."""
        return self.tokens <= WEIGHTS_KEPT


def attend(qh: Tensor, kh: Tensor, vh: Tensor, shape: Shape, kernels: Kernels) -> tuple[Tensor, list[Tensor]]:
    """Attends.

    Args:
        qh: rotated, in 16 bits: [rows · keys, heads of each, tokens, width].
        kh: [rows · keys, before + tokens, width].
        vh: as kh.
        shape: of all.
        kernels: compiled.

    Returns:
        what comes out, [rows · tokens, heads · width] in 16 bits, and what `gradients` needs.
    """
    queries, keys, width = shape.heads
    y = qh.new_empty(shape.rows, shape.tokens, keys, queries // keys, width)
    kept = [qh, kh, vh]
    for start, stop, first, last in shape.blocks():
        p = _weights(qh[:, :, start:stop], kh[:, first:last], start - first, shape, kernels)
        y[:, start:stop].copy_(_apart(torch.bmm(p, vh[:, first:last]), shape, stop - start))
        if shape.kept:
            kept.append(p)
    return y.view(shape.rows * shape.tokens, queries * width), kept


def gradients(g: Tensor, kept: list[Tensor], shape: Shape, kernels: Kernels) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the gradients of what `attend` was given, laid out alike, in 16 bits.

    Args:
        g: the gradient of what came out, [rows · tokens, heads · width].
        kept: what `attend` gave.
        shape: of all.
        kernels: compiled.
    """
    qh, kh, vh, *weights = kept
    queries, _, width = shape.heads
    gh = _queries(g.view(shape.rows, shape.tokens, queries, width), shape)
    if shape.kept:
        return _gradients_of_block(gh, kh, vh, qh, weights[0], shape.before, shape, kernels)
    dq = torch.empty_like(qh)
    # Keys are seen by several blocks: what these say is added up in float32.
    dk, dv = (torch.zeros(kh.shape) for _ in range(2))
    for start, stop, first, last in shape.blocks():
        seen, asked = (kh[:, first:last], vh[:, first:last]), qh[:, :, start:stop]
        p = _weights(asked, seen[0], start - first, shape, kernels)
        ahead = shape.before + start - first
        gq, gk, gv = _gradients_of_block(gh[:, :, start:stop], *seen, asked, p, ahead, shape, kernels)
        dq[:, :, start:stop].copy_(gq)
        dk[:, first:last] += gk
        dv[:, first:last] += gv
    return dq, dk.to(NARROW), dv.to(NARROW)


def _gradients_of_block(
    gh: Tensor, kh: Tensor, vh: Tensor, qh: Tensor, p: Tensor, before: int, shape: Shape, kernels: Kernels
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the gradients of some queries, and of the keys and values they saw."""
    size = gh.shape[2]
    gy, asked = gh.flatten(1, 2), qh.flatten(1, 2)
    dp = torch.bmm(gy, vh.mT)
    kernels.band_softmax_backward(p, dp, size, before, shape.window, shape.scale)
    return torch.bmm(dp, kh).view(gh.shape), torch.bmm(dp.mT, asked), torch.bmm(p.mT, gy)


def _queries(x: Tensor, shape: Shape) -> Tensor:
    """Lays [rows, tokens, heads, width] out as [rows · keys' heads, heads of each, tokens, width]."""
    queries, keys, width = shape.heads
    parts = x.reshape(shape.rows, shape.tokens, keys, queries // keys, width).permute(0, 2, 3, 1, 4)
    return _copied(parts).view(shape.rows * keys, queries // keys, shape.tokens, width)


def _copied(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=NARROW).copy_(x)


def _weights(qh: Tensor, kh: Tensor, ahead: int, shape: Shape, kernels: Kernels) -> Tensor:
    """Computes how much some queries look at each key, [N, group · queries, keys].

    Args:
        qh: [N, group, queries, width].
        kh: [N, keys, width].
        ahead: keys before the first query, beside those that stand before all.
        shape: of all.
        kernels: compiled.
    """
    scores = torch.bmm(qh.flatten(1, 2), kh.mT)
    kernels.band_softmax(scores, qh.shape[2], shape.before + ahead, shape.window, shape.scale)
    return scores


def _apart(x: Tensor, shape: Shape, size: int) -> Tensor:
    """Shows [N, group · queries, width] as [rows, queries, keys' heads, group, width]."""
    queries, keys, width = shape.heads
    return x.view(shape.rows, keys, queries // keys, size, width).permute(0, 3, 1, 2, 4)
