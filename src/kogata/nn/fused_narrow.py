"""Fused blocks whose products have factors of 16 bits: what lies between products is kept in 16 bits too.

Computes what `nn/fused.py` does. The residual stream, gains and all weights are float32, and so are the sums
within a norm, a gate or a softmax; a number is rounded once for all products that it is a factor of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kogata.nn.attention import _narrow
from kogata.nn.dropping import mask_like
from kogata.nn.kernels_narrow import NarrowKernels
from kogata.nn.products import factor


def _added(x: Tensor, a: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """Adds a · weightᵀ, what the mask drops left out."""
    found = torch.mm(a, factor(weight).t())
    return x + found if mask is None else torch.addcmul(x, found.float(), mask)


def _kept(g: Tensor, mask: Tensor | None) -> Tensor:
    return factor(g if mask is None else g * mask)


def feed_forward(
    ctx: Any, x: Tensor, inner: Tensor, down: Tensor, facts: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Adds the feed-forward part to x; gives what its backward pass needs."""
    k = NarrowKernels(facts.kernels)
    h, inverse = k.rms_forward(x, facts.eps)
    u = torch.mm(h, factor(inner).t())
    a = k.gate_forward(facts.ffn, u, facts.ffn_width)
    mask = mask_like(x, facts.dropout)
    ctx.ffn_mask = mask
    return _added(x, a, down, mask), (h, inverse, u, a)


def feed_forward_backward(
    ctx: Any, g: Tensor, inner: Tensor, down: Tensor, kept: tuple[Tensor, ...], facts: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the gradients of x, inner and down."""
    k = NarrowKernels(facts.kernels)
    h, inverse, u, a = kept
    gy = _kept(g, ctx.ffn_mask)
    g_down = torch.mm(gy.t(), a).float()
    k.gate_backward(facts.ffn, u, torch.mm(gy, factor(down)))
    g_inner = torch.mm(u.t(), h).float()
    return k.rms_backward(torch.mm(u, factor(inner)), h, inverse, g), g_inner, g_down


class FeedForward(torch.autograd.Function):
    """A feed-forward part behind a mixer that is computed elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: Tensor, down: Tensor, facts: Any) -> Tensor:
        """Adds it to x [N, D]."""
        y, kept = feed_forward(ctx, x, inner, down, facts)
        ctx.facts = facts
        ctx.save_for_backward(inner, down, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gives the gradients of x and both weights."""
        inner, down, *kept = ctx.saved_tensors
        return *feed_forward_backward(ctx, outputs[0].contiguous(), inner, down, tuple(kept), ctx.facts), None


class Block(torch.autograd.Function):
    """Attention and feed-forward part."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        qkv: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        out: Tensor,
        inner: Tensor,
        down: Tensor,
        values: Tensor | None,
        facts: Any,
    ) -> Tensor:
        """Takes x [N, D] through the block."""
        k = NarrowKernels(facts.kernels)
        gains = None if query_gain is None or key_gain is None else (query_gain, key_gain)
        rows = x.shape[0] // facts.tokens
        shape = _narrow.Shape(rows=rows, tokens=facts.tokens, heads=facts.heads, window=facts.window or 0)
        h, inverse = k.rms_forward(x, facts.eps)
        z = torch.mm(h, factor(qkv).t())
        if values is not None:
            z[:, -values.shape[1] :] += values
        qh, kh, vh, inverse_heads = k.heads_forward(z, gains, facts.turn, rows, facts.heads, facts.eps)
        y, kept = _narrow.attend(qh, kh, vh, shape, facts.kernels)
        ctx.mask = mask_like(x, facts.dropout)
        made, second = feed_forward(ctx, _added(x, y, out, ctx.mask), inner, down, facts)
        ctx.facts, ctx.gains, ctx.shape = facts, gains, shape
        ctx.save_for_backward(qkv, out, inner, down, h, inverse, z, inverse_heads, y, *second, *kept)
        return made

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gives the gradients of x and all weights."""
        facts, k = ctx.facts, NarrowKernels(ctx.facts.kernels)
        saved = ctx.saved_tensors  # Once: computed again, they can be taken a single time.
        qkv, out, inner, down, h, inverse, z, inverse_heads, y = saved[:9]
        second, kept = saved[9:13], list(saved[13:])
        g, g_inner, g_down = feed_forward_backward(
            ctx, outputs[0].contiguous(), inner, down, tuple(second), facts
        )
        gy = _kept(g, ctx.mask)
        g_out = torch.mm(gy.t(), y).float()
        grads = _narrow.gradients(torch.mm(gy, factor(out)), kept, ctx.shape, facts.kernels)
        gz, g_query, g_key = k.heads_backward(
            grads, z, inverse_heads, ctx.gains, facts.turn, facts.tokens, facts.heads
        )
        g_qkv = torch.mm(gz.t(), h).float()
        g0 = k.rms_backward(torch.mm(gz, factor(qkv)), h, inverse, g)
        kv = facts.heads[1] * facts.heads[2]
        g_values = gz[:, -kv:].float() if ctx.needs_input_grad[7] else None
        return g0, g_qkv, g_query, g_key, g_out, g_inner, g_down, g_values, None
