"""Sliding-window attention computed in blocks of queries: T · (window + block) scores, not T · T.

A block of `block` queries sees the keys from `window` before its first one; all blocks are one call, their
keys an overlapping view that is never copied. On a CPU forward and backward pass call torch's flash kernels;
elsewhere torch's attention does the same on unfolded keys.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.nn.attention.window import block_of
from kogata.nn.place import Place

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attends to the last `window` tokens, itself included.

    Args:
        q: [B, heads, T, head_dim].
        k: [B, kv_heads, T, head_dim].
        v: as k.
        window: tokens.
    """
    if q.shape[1] != k.shape[1]:
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    if q.shape[2] <= window:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if q.device.type == "cpu" and q.dtype == torch.float32:
        return _Windowed.apply(q, k, v, window)
    return _unfolded(q, k, v, window)


def attend_window(q: Tensor, k: Tensor, v: Tensor, window: int, place: Place) -> Tensor:
    """Attends through a window; keys may be more than queries, which then are the last ones."""
    if place.documents is not None:
        rows = []
        for row in range(len(place.documents)):
            pieces = []
            for start, end in place.pieces(row):
                one = (slice(row, row + 1), slice(None), slice(start, end))
                pieces.append(window_attention(q[one], k[one], v[one], window))
            rows.append(torch.cat(pieces, 2))
        return torch.cat(rows, 0)
    new, seen = q.shape[2], k.shape[2]
    if new == seen:
        return window_attention(q, k, v, window)
    grouped = q.shape[1] != k.shape[1]
    if new == 1:
        k, v = k[:, :, -window:], v[:, :, -window:]
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
    if new <= 2 * window:
        mask = _mask(new, seen - new, window, q.dtype, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    # A long continuation: the few tokens before it get queries too, whose answers are dropped.
    before = q.new_zeros(*q.shape[:2], seen - new, q.shape[3])
    return window_attention(torch.cat([before, q], 2), k, v, window)[:, :, seen - new :]


class Windows:
    """How T tokens are cut: first queries that see all before them, then blocks, then a rest."""

    def __init__(self, tokens: int, window: int, like: Tensor) -> None:
        self.tokens, self.window, self.block = tokens, window, block_of(window)
        self.reach = -(-window // self.block) * self.block
        self.first = min(self.reach, tokens)
        self.blocks = (tokens - self.first) // self.block
        self.rest = tokens - self.first - self.blocks * self.block
        self.like = like

    def mask(self, queries: int, before: int) -> Tensor | None:
        """Gives what to add to the scores of queries that follow on `before` keys; None: just causal."""
        if not before and queries <= self.window:
            return None
        return _mask(queries, before, self.window, self.like.dtype, self.like.device)

    def cut(self, batch: int) -> list[tuple[int, int, int, int]]:
        """Lists (row, first query, queries of a block, blocks)."""
        middle = self.first + self.blocks * self.block
        pieces = []
        for row in range(batch):
            pieces.append((row, 0, self.first, 1))
            if self.blocks:
                pieces.append((row, self.first, self.block, self.blocks))
            if self.rest:
                pieces.append((row, middle, self.rest, 1))
        return pieces

    def queries(self, x: Tensor, row: int, start: int, size: int, blocks: int) -> Tensor:
        """Shows some queries as [blocks, heads, size, dim]."""
        _, heads, _, dim = x.shape
        s = x.stride()
        offset = x.storage_offset() + row * s[0] + start * s[2]
        return x.as_strided((blocks, heads, size, dim), (size * s[2], s[1], s[2], s[3]), offset)

    def keys(self, x: Tensor, row: int, start: int, size: int, blocks: int) -> Tensor:
        """Shows the keys that these queries may see, [blocks, heads, before + size, dim], overlapping."""
        _, heads, _, dim = x.shape
        s = x.stride()
        before = self.reach if start else 0
        offset = x.storage_offset() + row * s[0] + (start - before) * s[2]
        shape = (blocks, heads, before + size, dim)
        return x.as_strided(shape, (size * s[2], s[1], s[2], s[3]), offset)


_masks: dict[tuple[int, int, int, torch.dtype, torch.device], Tensor] = {}


def _mask(queries: int, before: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    key = queries, before, window, dtype, device
    if key not in _masks:
        if len(_masks) > 64:
            _masks.clear()
        # It may be made while scoring and used in training afterwards.
        with torch.inference_mode(False):
            distance = (before + torch.arange(queries))[:, None] - torch.arange(before + queries)[None]
            hidden = (distance < 0) | (distance >= window)
            mask = torch.zeros(queries, before + queries, dtype=dtype)
            _masks[key] = mask.masked_fill_(hidden, -torch.inf).to(device)
    return _masks[key]


def windowed_forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, list[Tensor]]:
    """Gives the output [B, T, heads, dim], and what the backward pass needs."""
    batch, heads, tokens, dim = q.shape
    cut = Windows(tokens, window, q)
    y = q.new_empty(batch, tokens, heads, dim)
    sums = []
    for row, start, size, blocks in cut.cut(batch):
        place = row, start, size, blocks
        mask = cut.mask(size, cut.reach if start else 0)
        seen = cut.keys(k, *place), cut.keys(v, *place)
        found, total = _forward(cut.queries(q, *place), *seen, 0.0, mask is None, attn_mask=mask)
        y[row, start : start + size * blocks].view(blocks, size, heads, dim).copy_(found.transpose(1, 2))
        sums.append(total)
    return y, sums


def windowed_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, sums: list[Tensor], window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the gradients of queries, keys and values as [B, T, heads, dim]; g is [B, T, heads, dim]."""
    batch, heads, tokens, dim = q.shape
    cut = Windows(tokens, window, q)
    dq = torch.empty_like(y)
    dk, dv = torch.zeros_like(y), torch.zeros_like(y)
    gt, yt = g.transpose(1, 2), y.transpose(1, 2)
    for (row, start, size, blocks), total in zip(cut.cut(batch), sums, strict=True):
        place = row, start, size, blocks
        before = cut.reach if start else 0
        mask = cut.mask(size, before)
        gq, gk, gv = _backward(
            cut.queries(gt, *place), cut.queries(q, *place), cut.keys(k, *place), cut.keys(v, *place),
            cut.queries(yt, *place), total, 0.0, mask is None, attn_mask=mask,
        )  # fmt: skip
        dq[row, start : start + size * blocks].view(blocks, size, heads, dim).copy_(gq.transpose(1, 2))
        # Keys were shown to several blocks: their gradients are added up, one shift of a block at a time.
        for target, part in ((dk, gk), (dv, gv)):
            _add_overlapping(target[row], part, start - before, size)
    return dq, dk, dv


def _add_overlapping(target: Tensor, part: Tensor, first: int, step: int) -> None:
    """Adds part [blocks, heads, keys, dim], whose blocks begin `step` apart, to target [T, heads, dim]."""
    blocks, heads, keys, dim = part.shape
    turned = part.transpose(1, 2)
    if blocks == 1:
        target[first : first + keys] += turned[0]
        return
    for shift in range(0, keys, step):
        here = target[first + shift : first + shift + blocks * step].view(blocks, step, heads, dim)
        here += turned[:, shift : shift + step]


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        y, sums = windowed_forward(q, k, v, window)
        ctx.window = window
        ctx.save_for_backward(q, k, v, y, *sums)
        return y.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, y, *sums = ctx.saved_tensors
        grads = windowed_backward(outputs[0].transpose(1, 2), q, k, v, y, sums, ctx.window)
        dq, dk, dv = (grad.transpose(1, 2) for grad in grads)
        return dq, dk, dv, None


def _unfolded(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    cut = Windows(q.shape[2], window, q)
    batch, heads, _, dim = q.shape
    start, mask = (x[:, :, : cut.first] for x in (q, k, v)), cut.mask(cut.first, 0)
    parts = [F.scaled_dot_product_attention(*start, attn_mask=mask, is_causal=mask is None)]
    if cut.blocks:
        end = cut.first + cut.blocks * cut.block
        asked = q[:, :, cut.first : end].unflatten(2, (cut.blocks, cut.block)).transpose(1, 2).flatten(0, 1)
        seen = [
            x[:, :, cut.first - cut.reach : end].unfold(2, cut.reach + cut.block, cut.block).movedim(-1, 3)
            .transpose(1, 2).flatten(0, 1)
            for x in (k, v)
        ]  # fmt: skip
        found = F.scaled_dot_product_attention(asked, *seen, attn_mask=cut.mask(cut.block, cut.reach))
        parts.append(found.unflatten(0, (batch, cut.blocks)).transpose(1, 2).flatten(2, 3))
    if cut.rest:
        last = slice(-cut.rest - cut.reach, None)
        mask = cut.mask(cut.rest, cut.reach)
        parts.append(
            F.scaled_dot_product_attention(q[:, :, -cut.rest :], k[:, :, last], v[:, :, last], attn_mask=mask)
        )
    return torch.cat(parts, 2)
