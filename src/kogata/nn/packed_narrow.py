"""Attention of packed documents by products of 16-bit factors, document by document."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kogata.nn.attention import _narrow
from kogata.nn.products import NARROW


def attend(turned: Tensor, z: Tensor, facts: Any) -> tuple[Tensor, list[list[Tensor]]]:
    """Attends within each document.

    Args:
        turned: queries and keys as they are compared, [N, heads, width].
        z: queries, keys and values as they came, [N, all of them].
        facts: of `nn/packed.py`: heads, kernels, and what each document begins with.

    Returns:
        what comes out, [N, queries, width] in float32, and what `gradients` needs of each document.
    """
    queries, keys, width = facts.heads
    values = z.view(z.shape[0], queries + 2 * keys, width)[:, queries + keys :]
    y, kept = z.new_empty(z.shape[0], queries, width), []
    for start, stop, before in facts.pieces():
        asked = _by_head(turned[start:stop, :queries]).view(keys, queries // keys, stop - start, width)
        k, v = (_keys(x, start, stop, before) for x in (turned[:, queries:], values))
        found, held = _narrow.attend(asked, k, v, _shape(facts, start, stop, before), facts.kernels)
        y[start:stop].copy_(found.view(stop - start, queries, width))
        kept.append(held)
    return y, kept


def gradients(g: Tensor, kept: list[list[Tensor]], facts: Any, dv: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the gradients of queries and keys, [N, heads, width] each, and fills those of values.

    Args:
        g: of what came out, [N, queries, width].
        kept: of each document.
        facts: as for `attend`.
        dv: the values', [N, keys, width].
    """
    queries, keys, width = facts.heads
    dq, dk = g.new_empty(g.shape), g.new_empty(g.shape[0], keys, width)
    for (start, stop, before), held in zip(facts.pieces(), kept, strict=True):
        shape = _shape(facts, start, stop, before)
        own = g[start:stop].reshape(stop - start, -1)
        gq, gk, gv = _narrow.gradients(own, held, shape, facts.kernels)
        dq[start:stop].copy_(gq.reshape(queries, stop - start, width).transpose(0, 1))
        for whole, part in ((dk, gk), (dv, gv)):
            whole[start:stop].copy_(part[:, before:].transpose(0, 1))
            if before:
                # What documents share has its gradient in the first one.
                whole[:before] += part[:, :before].transpose(0, 1)
    return dq, dk


def _shape(facts: Any, start: int, stop: int, before: int) -> _narrow.Shape:
    return _narrow.Shape(rows=1, tokens=stop - start, heads=facts.heads, before=before)


def _by_head(x: Tensor) -> Tensor:
    """Lays [T, heads, width] out as [heads, T, width] in 16 bits."""
    turned = x.transpose(0, 1)
    return torch.empty(turned.shape, dtype=NARROW).copy_(turned)


def _keys(x: Tensor, start: int, stop: int, before: int) -> Tensor:
    """Lays a document's keys or values out by head, behind those it begins with."""
    if not before:
        return _by_head(x[start:stop])
    out = torch.empty(x.shape[1], before + stop - start, x.shape[2], dtype=NARROW)
    out[:, :before].copy_(x[:before].transpose(0, 1))
    out[:, before:].copy_(x[start:stop].transpose(0, 1))
    return out
