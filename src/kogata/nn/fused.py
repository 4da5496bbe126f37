"""Blocks whose forward and backward pass are each written out: fewer passes over memory than autograd's.

Computes what `Decoder.hidden` computes, for what fits: full attention and windows, plain linear layers
without bias, norms before mixers and feed-forward parts with gains of one (they start so, and pretraining
holds them). Other mixers between them run as they are, their feed-forward parts fused.
Blocks may stand in the order several times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kogata.nn import fused_narrow
from kogata.nn.attention._blocks import windowed_backward, windowed_forward
from kogata.nn.attention.full import Mixer
from kogata.nn.decoder import Block, Decoder
from kogata.nn.dropping import dropped, mask_like
from kogata.nn.kernels import MOST_HEAD, Kernels
from kogata.nn.mixers import find
from kogata.nn.place import Place
from kogata.nn.products import rounds

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def fits(decoder: Decoder) -> bool:
    """Says whether the decoder can be computed here, all of it or most of its products."""
    spec = decoder.spec
    plain = spec.ffn in ("swiglu", "relu2") and not spec.qkv_bias and spec.head_dim <= MOST_HEAD
    return (
        plain
        and (decoder.loops is None or not len(decoder.loops.changes))
        and _is_one(decoder.norm)
        and all(_ffn_fits(block) for block in decoder.layers())
    )


def _block_fits(block: Block) -> bool:
    mixer = block.mixer
    return (
        type(mixer) in (Mixer, find("window").Mixer)
        and not mixer.keeps
        and all(map(_is_plain, _leaves(mixer)))
        and _is_one(block.mixer_norm)
    )


def _ffn_fits(block: Block) -> bool:
    return block.ffn_after is None and _is_one(block.ffn_norm) and all(map(_is_plain, _leaves(block.ffn)))


def _leaves(part: nn.Module) -> list[nn.Module]:
    return [m for m in part.modules() if not list(m.children()) and not isinstance(m, nn.RMSNorm)]


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks


def _is_one(norm: nn.RMSNorm) -> bool:
    return not norm.weight.requires_grad and bool((norm.weight == 1).all())


class FusedHidden:
    """Computes a decoder's hidden vectors [B, T, D] of ids [B, T]; of rows with hidden inputs both ways.

    Args:
        decoder: of which `fits` says yes.
        kernels: compiled.
    """

    def __init__(self, decoder: Decoder, kernels: Kernels) -> None:
        self.decoder, self.kernels = decoder, kernels
        blocks = decoder.layers()
        order = range(len(blocks)) if decoder.loops is None else decoder.loops.order
        self.passes = [(blocks[number], _block_fits(blocks[number])) for number in order]

    def __call__(self, ids: Tensor, masked: Tensor | None = None) -> Tensor:
        decoder = self.decoder
        spec = decoder.spec
        batch, tokens = ids.shape
        cosine, sine = decoder.rope(0, tokens, None)
        half = spec.head_dim // 2
        # The decoder's tables repeat the cosine and carry the half-turn's sign in the sine.
        turn = cosine[:, 0, :half].contiguous(), sine[:, 0, half:].contiguous()
        x = decoder.embedded(ids, masked)
        added = decoder.added
        if added is not None:
            x = added.start(x, ids)
        x = first = x.view(batch * tokens, spec.width)
        kept: dict[str, tuple[Tensor, Tensor]] = {}
        narrow = rounds(x) and masked is None
        whole_block: Any = fused_narrow.Block if narrow else _Block
        feed_forward: Any = fused_narrow.FeedForward if narrow else _FeedForward
        for layer, (block, whole) in enumerate(self.passes[: decoder.depth]):
            facts = _Facts(self.kernels, tokens, spec, turn if spec.has_rope(layer) else None)
            facts.dropout, facts.causal = block.dropout, masked is None
            values = None
            if added is not None:
                x, values = added.scale(layer, x, first), added.values_of(layer, ids)
            mixer, ffn = block.mixer, block.ffn
            inner = ffn.gate_up if spec.ffn == "swiglu" else ffn.up
            if not whole:
                place = Place(cosine, sine, values=values, kept=kept, causal=facts.causal)
                mixed = dropped(mixer(block.mixer_norm(x.view(batch, tokens, -1)), place), block.dropout)
                x = feed_forward.apply(x + mixed.view(x.shape), inner.weight, ffn.down.weight, facts)
                continue
            facts.window = mixer.window if mixer.window is not None and mixer.window < tokens else None
            gains = (None, None) if mixer.q_norm is None else (mixer.q_norm.weight, mixer.k_norm.weight)
            more = None if values is None else values.view(batch * tokens, spec.kv_width)
            weights = mixer.qkv.weight, *gains, mixer.out.weight, inner.weight, ffn.down.weight
            if decoder.recompute and torch.is_grad_enabled():
                x = checkpoint(whole_block.apply, x, *weights, more, facts, use_reentrant=False)
            else:
                x = whole_block.apply(x, *weights, more, facts)
        x = _Norm.apply(x, self.kernels, spec.norm_eps)
        return x.view(batch, tokens, spec.width)


class _Facts:
    """What a block's computation needs beside tensors with gradients."""

    def __init__(self, kernels: Kernels, tokens: int, spec: Any, turn: tuple[Tensor, Tensor] | None) -> None:
        self.kernels, self.tokens, self.turn = kernels, tokens, turn
        self.heads = spec.heads, spec.kv_heads, spec.head_dim
        self.ffn, self.ffn_width, self.eps = spec.ffn, spec.ffn_width, spec.norm_eps
        self.window: int | None = None
        """Tokens of a window shorter than the sequence."""
        self.dropout = 0.0
        self.causal = True


def _added(x: Tensor, a: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """Adds a · weightᵀ, what the mask drops left out."""
    return torch.addmm(x, a, weight.t()) if mask is None else torch.addcmul(x, a @ weight.t(), mask)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Kernels, eps: float) -> Tensor:
        y, inverse = kernels.rms_forward(x, eps)
        ctx.kernels = kernels
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        y, inverse = ctx.saved_tensors
        return ctx.kernels.rms_backward(outputs[0].contiguous(), y, inverse, None), None, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: Tensor, down: Tensor, facts: _Facts) -> Tensor:
        k = facts.kernels
        h, inverse = k.rms_forward(x, facts.eps)
        u = h @ inner.t()
        a = k.gate_forward(facts.ffn, u, facts.ffn_width)
        ctx.facts, ctx.mask = facts, mask_like(x, facts.dropout)
        ctx.save_for_backward(inner, down, h, inverse, u, a)
        return _added(x, a, down, ctx.mask)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        g = outputs[0].contiguous()
        inner, down, h, inverse, u, a = ctx.saved_tensors
        k = ctx.facts.kernels
        kept = g if ctx.mask is None else g * ctx.mask
        g_down = kept.t() @ a
        k.gate_backward(ctx.facts.ffn, u, kept @ down)
        g_inner = u.t() @ h
        return k.rms_backward(u @ inner, h, inverse, g), g_inner, g_down, None


class _Block(torch.autograd.Function):
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
        facts: _Facts,
    ) -> Tensor:
        k = facts.kernels
        gains = None if query_gain is None or key_gain is None else (query_gain, key_gain)
        h1, inverse1 = k.rms_forward(x, facts.eps)
        z = h1 @ qkv.t()
        if values is not None:
            z[:, -values.shape[1] :] += values
        turned, inverse_heads = k.heads_forward(z, gains, facts.turn, facts.tokens, facts.heads, facts.eps)
        if facts.window is None:
            attended, *sums = _forward(*_views(turned, z, facts), 0.0, facts.causal)
            y = attended.transpose(1, 2).reshape(x.shape[0], -1)
        else:
            attended, sums = windowed_forward(*_views(turned, z, facts), facts.window)
            y = attended.view(x.shape[0], -1)
        first = mask_like(x, facts.dropout)
        x1 = _added(x, y, out, first)
        h2, inverse2 = k.rms_forward(x1, facts.eps)
        u = h2 @ inner.t()
        a = k.gate_forward(facts.ffn, u, facts.ffn_width)
        masks = first, mask_like(x, facts.dropout)
        ctx.facts, ctx.gains, ctx.masks = facts, gains, masks
        ctx.save_for_backward(
            qkv,
            out,
            inner,
            down,
            h1,
            inverse1,
            z,
            turned,
            inverse_heads,
            attended,
            y,
            h2,
            inverse2,
            u,
            a,
            *sums,
        )
        return x1.addmm_(a, down.t()) if masks[1] is None else x1.addcmul_(a @ down.t(), masks[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        g = outputs[0].contiguous()
        facts: _Facts = ctx.facts
        kept_for_it = ctx.saved_tensors  # Once: computed again, they can be taken a single time.
        qkv, out, inner, down, h1, inverse1, z, turned, inverse_heads = kept_for_it[:9]
        attended, y, h2, inverse2, u, a, *sums = kept_for_it[9:]
        k = facts.kernels
        queries, keys, dim = facts.heads
        kept = g if ctx.masks[1] is None else g * ctx.masks[1]
        g_down = kept.t() @ a
        k.gate_backward(facts.ffn, u, kept @ down)
        g_inner = u.t() @ h2
        g1 = k.rms_backward(u @ inner, h2, inverse2, g)
        kept = g1 if ctx.masks[0] is None else g1 * ctx.masks[0]
        g_out = kept.t() @ y
        rows = g.shape[0]
        gy = (kept @ out).view(rows // facts.tokens, facts.tokens, queries, dim)
        if facts.window is None:
            seen = *_views(turned, z, facts), attended, *sums
            dq, dk, dv = _backward(gy.transpose(1, 2), *seen, 0.0, facts.causal)
        else:
            grads = windowed_backward(gy, *_views(turned, z, facts), attended, sums, facts.window)
            dq, dk, dv = (grad.transpose(1, 2) for grad in grads)
        group = queries // keys
        if group > 1:
            dk, dv = (t.reshape(len(t), keys, group, facts.tokens, dim).sum(2) for t in (dk, dv))
        dq, dk, dv = (t.transpose(1, 2).reshape(rows, -1) for t in (dq, dk, dv))
        gz = torch.empty_like(z)
        g_query, g_key = k.heads_backward(
            (dq, dk), z, gz, inverse_heads, ctx.gains, facts.turn, facts.tokens, facts.heads
        )
        gz[:, (queries + keys) * dim :] = dv
        g_qkv = gz.t() @ h1
        g0 = k.rms_backward(gz @ qkv, h1, inverse1, g1)
        g_values = dv if ctx.needs_input_grad[7] else None
        return g0, g_qkv, g_query, g_key, g_out, g_inner, g_down, g_values, None


def _views(turned: Tensor, z: Tensor, facts: _Facts) -> tuple[Tensor, Tensor, Tensor]:
    """Shows queries, keys and values as attention wants them, [B, heads, T, dim], without copying."""
    queries, keys, dim = facts.heads
    rows = z.shape[0]
    shape = rows // facts.tokens, facts.tokens
    q, key = turned.view(*shape, queries + keys, dim).split([queries, keys], 2)
    v = z.view(*shape, queries + 2 * keys, dim)[:, :, queries + keys :]
    q, key, v = q.transpose(1, 2), key.transpose(1, 2), v.transpose(1, 2)
    if queries > keys:
        key, v = (t.repeat_interleave(queries // keys, 1) for t in (key, v))
    return q, key, v
