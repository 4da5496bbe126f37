"""Documents laid end to end through a decoder, without padding: every token once, attention per document.

Computes what `Decoder.hidden(documents=…)` computes. A beginning that all documents share (a system message)
may lie there once: the first document has it, the others begin behind it and attend to it.

Linear layers are called as modules, so whatever stands in their place (adapters, held weights) works; norms,
rotary heads, attention and gates are each one function with a backward pass written out, so little is kept
for it and few passes over memory are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kogata.core.errors import RecipeError
from kogata.nn import packed_narrow
from kogata.nn.attention.full import Mixer
from kogata.nn.decoder import Block, Decoder
from kogata.nn.kernels import MOST_HEAD, Kernels
from kogata.nn.products import EVEN, rounds, through

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def fits(decoder: Decoder) -> bool:
    """Says whether every block can be computed here with kernels."""
    spec = decoder.spec
    if spec.ffn not in ("swiglu", "relu2") or spec.head_dim > MOST_HEAD:
        return False
    norms = [module for module in decoder.modules() if isinstance(module, torch.nn.RMSNorm)]
    plain = all(type(norm) is torch.nn.RMSNorm for norm in norms) and decoder.loops is None
    plain = plain and decoder.rope.cos.shape[-1] == spec.head_dim
    return plain and all(
        type(block.mixer) is Mixer and not block.mixer.keeps and block.ffn_after is None
        for block in decoder.layers()
    )


def positions_of(ends: Sequence[int], shared: int = 0) -> Tensor:
    """Gives each token's place in its own document: [N], from where the documents end.

    Of documents that share their first `shared` tokens, all but the first begin behind them.
    """
    places = [torch.arange(ends[0])]
    places += [torch.arange(shared, shared + end - start) for start, end in zip(ends, ends[1:], strict=False)]
    return torch.cat(places)


def unshared(ends: Sequence[int], shared: int) -> tuple[Tensor, list[int], Tensor]:
    """Lays documents out whole: the place of each token, where the documents end then, and the way back."""
    places, whole, back = [torch.arange(ends[0])], [ends[0]], [torch.arange(ends[0])]
    for start, end in zip(ends, ends[1:], strict=False):
        places += [torch.arange(shared), torch.arange(start, end)]
        begin = whole[-1] + shared
        whole.append(begin + end - start)
        back.append(torch.arange(begin, whole[-1]))
    return torch.cat(places), whole, torch.cat(back)


class PackedHidden:
    """Computes the residual stream of packed documents, block by block.

    Args:
        decoder: whose linear layers may be any modules.
        kernels: compiled; None computes the same with plain torch.
        recompute: whether the backward pass computes each block again instead of keeping what is in it.
    """

    def __init__(self, decoder: Decoder, kernels: Kernels | None, recompute: bool = False) -> None:
        if decoder.loops is not None:
            raise RecipeError("a model with shared layers cannot be fine-tuned yet", where="slot model")
        if decoder.added is not None:
            raise RecipeError("a model with additions cannot be fine-tuned yet", where="slot model")
        self.decoder, self.kernels = decoder, kernels if fits(decoder) else None
        self.recompute = recompute

    def __call__(self, ids: Tensor, ends: Sequence[int]) -> Tensor:
        """Computes the last hidden vectors [N, D], normalised, of ids [N]."""
        x = self.decoder.embed(ids)
        return self.finish(self.blocks(x, ends, 0, len(self.decoder.blocks)))

    def finish(self, x: Tensor) -> Tensor:
        """Applies the last norm."""
        return self._norm(x, self.decoder.norm)

    def blocks(
        self,
        x: Tensor,
        ends: Sequence[int],
        first: int,
        last: int,
        keep: Tensor | None = None,
        shared: int = 0,
    ) -> Tensor:
        """Takes x [N, D] through the blocks from `first` up to, not including, `last`.

        Args:
            x: what enters the first of them.
            ends: where each document ends.
            first: the first block.
            last: the block after the last one.
            keep: the rows that are wanted of the last one; it then computes no others behind its attention.
            shared: tokens that all documents begin with, laid out in the first one alone.
        """
        decoder, kernels = self.decoder, self.kernels
        ends = list(ends)
        blocks = decoder.layers()
        if kernels is None:
            y = self._plain(x, ends, first, last, shared)
            return y if keep is None else y.index_select(0, keep)
        memory, ahead = self._memory()
        positions = positions_of(ends, shared).to(x.device) + ahead
        wanted = len(x) if keep is None else len(keep)
        if rounds(x) and wanted:
            more = -len(x) % EVEN
            if more:
                # One document more, of zeros, that no other sees.
                x, ends = torch.nn.functional.pad(x, (0, 0, 0, more)), [*ends, len(x) + more]
                positions = torch.nn.functional.pad(positions, (0, more))
            if keep is not None:
                keep = torch.cat([keep, keep[:1].expand(-len(keep) % EVEN)])
        spec = decoder.spec
        half = spec.head_dim // 2
        cos, sin = decoder.rope(0, len(positions), positions)
        # The decoder's tables repeat the cosine and carry the half-turn's sign in the sine.
        turn = cos[:, 0, :half].contiguous(), sin[:, 0, half:].contiguous()
        for layer in range(first, last):
            rows = keep if layer == last - 1 else None
            facts = self._heads(turn if spec.has_rope(layer) else None, ends, shared)
            own = None if memory is None else memory[layer]
            x = self._run(self._block, x, blocks[layer], facts, rows, own)
        return x[:wanted]

    def _plain(self, x: Tensor, ends: list[int], first: int, last: int, shared: int) -> Tensor:
        back = None
        if shared:
            places, ends, back = unshared(ends, shared)
            x = x.index_select(0, places.to(x.device))
        memory, ahead = self._memory()
        positions = positions_of(ends).to(x.device) + ahead
        cos, sin = self.decoder.rope(0, len(positions), positions)
        y = x[None]
        for layer in range(first, last):
            own = None if memory is None else memory[layer]
            y = self._run(self._plain_block, y, layer, (cos, sin), ends, own)
        return y[0] if back is None else y[0].index_select(0, back.to(x.device))

    def _memory(self) -> tuple[Any, int]:
        """Gives the keys and values of each layer that stand before every document, and their positions."""
        front = self.decoder.front
        return (None, 0) if front is None or front.memory is None else (front.memory, front.tokens)

    def _plain_block(
        self, x: Tensor, layer: int, turn: tuple[Tensor, Tensor], ends: list[int], memory: Tensor | None
    ) -> Tensor:
        from kogata.nn.place import Place

        seen = None
        if memory is not None:
            keys, values = memory.transpose(1, 2)[:, None]
            seen = keys, values
        return self.decoder.layers()[layer](x, Place(*turn, [ends], memory=seen))

    def _run(self, compute: Any, x: Tensor, *more: Any) -> Tensor:
        if not self.recompute or not torch.is_grad_enabled():
            return compute(x, *more)
        # What is trained lies in the block: the result needs a gradient even where x does not.
        return Again.apply(x, x.new_zeros(()).requires_grad_(), compute, more)

    def _heads(self, turn: tuple[Tensor, Tensor] | None, ends: list[int], shared: int) -> _Heads:
        spec, kernels = self.decoder.spec, self.kernels
        assert kernels is not None
        return _Heads(kernels, turn, ends, (spec.heads, spec.kv_heads, spec.head_dim), spec.norm_eps, shared)

    def _block(
        self, x: Tensor, block: Block, facts: _Heads, keep: Tensor | None, memory: Tensor | None
    ) -> Tensor:
        spec, kernels = self.decoder.spec, facts.kernels
        mixer, ffn = block.mixer, block.ffn
        gains = (None, None) if mixer.q_norm is None else (mixer.q_norm.weight, mixer.k_norm.weight)
        z = through(mixer.qkv, self._norm(x, block.mixer_norm))
        mixed = _Attention.apply(z, *gains, memory, facts)
        if keep is not None:
            x, mixed = x.index_select(0, keep), mixed.index_select(0, keep)
        x = x + through(mixer.out, mixed)
        inner = ffn.gate_up if spec.ffn == "swiglu" else ffn.up
        u = through(inner, self._norm(x, block.ffn_norm))
        return x + through(ffn.down, _Gate.apply(u, kernels, spec.ffn, spec.ffn_width))

    def _norm(self, x: Tensor, norm: torch.nn.RMSNorm) -> Tensor:
        if self.kernels is None:
            return norm(x)
        return _Norm.apply(x, norm.weight, self.kernels, self.decoder.spec.norm_eps)


class Again(torch.autograd.Function):
    """Keeps a block's input alone and computes the block again for its gradients.

    torch has the same in `torch.utils.checkpoint`, whose first call imports a compiler for seconds.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, marker: Tensor, compute: Any, more: tuple[Any, ...]) -> Tensor:
        ctx.compute, ctx.more = compute, more
        ctx.save_for_backward(x)
        return compute(x, *more)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        x = ctx.saved_tensors[0].detach().requires_grad_(ctx.needs_input_grad[0])
        with torch.enable_grad():
            y = ctx.compute(x, *ctx.more)
        torch.autograd.backward(y, outputs[0])
        return x.grad, None, None, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, kernels: Kernels, eps: float) -> Tensor:
        x = x.contiguous()
        y, inverse = kernels.rms_gain_forward(x, gain, eps)
        ctx.kernels = kernels
        ctx.save_for_backward(x, gain, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, gain, inverse = ctx.saved_tensors
        g = outputs[0].contiguous()
        need_x, need_gain = ctx.needs_input_grad[:2]
        g_gain = (g * x).mul_(inverse[:, None]).sum(0) if need_gain else None
        return ctx.kernels.rms_gain_backward(g, x, inverse, gain) if need_x else None, g_gain, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner: Tensor, kernels: Kernels, kind: str, width: int) -> Tensor:
        inner = inner.contiguous()
        ctx.kernels, ctx.kind = kernels, kind
        ctx.save_for_backward(inner)
        return kernels.gate_forward(kind, inner, width)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (inner,) = ctx.saved_tensors
        # The kernel turns `inner` into its gradient where it lies; nobody reads it after this.
        ctx.kernels.gate_backward(ctx.kind, inner, outputs[0].contiguous())
        return inner, None, None, None


class _Heads:
    """What attention needs beside tensors with gradients."""

    def __init__(
        self,
        kernels: Kernels,
        turn: tuple[Tensor, Tensor] | None,
        ends: list[int],
        heads: tuple[int, int, int],
        eps: float,
        shared: int = 0,
    ) -> None:
        self.kernels, self.turn, self.ends, self.heads, self.eps = kernels, turn, ends, heads, eps
        self.shared = shared

    def pieces(self) -> list[tuple[int, int, int]]:
        """Lists the rows of each document, and how many of the first document's rows it begins with."""
        spans = zip([0, *self.ends[:-1]], self.ends, strict=True)
        return [(start, stop, self.shared if start else 0) for start, stop in spans]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        query_gain: Tensor | None,
        key_gain: Tensor | None,
        memory: Tensor | None,
        facts: _Heads,
    ) -> Tensor:
        z = z.contiguous()
        gains = None if query_gain is None or key_gain is None else (query_gain, key_gain)
        rows = z.shape[0]
        turned, inverse = facts.kernels.heads_forward(z, gains, facts.turn, rows, facts.heads, facts.eps)
        queries, _, dim = facts.heads
        ctx.narrow = None
        if memory is None and rounds(z):
            y, ctx.narrow = packed_narrow.attend(turned, z, facts)
            ctx.facts, ctx.gains = facts, gains
            ctx.save_for_backward(z, inverse)
            return y.view(rows, queries * dim)
        y = z.new_empty(rows, queries, dim)
        sums = []
        front = 0 if memory is None else memory.shape[1]
        for start, stop, before in facts.pieces():
            attended, total = _forward(*_views(turned, z, facts, start, stop, before, memory), 0.0, True)
            y[start:stop] = attended[0, :, front + before :].transpose(0, 1)
            sums.append(total)
        ctx.facts, ctx.gains, ctx.memory = facts, gains, memory
        ctx.save_for_backward(z, turned, inverse, y, *sums)
        return y.view(rows, queries * dim)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        facts: _Heads = ctx.facts
        if ctx.narrow is not None:
            return _narrow_backward(ctx, outputs[0])
        memory: Tensor | None = ctx.memory
        front, gm = (0, None) if memory is None else (memory.shape[1], torch.zeros_like(memory))
        z, turned, inverse, y, *sums = ctx.saved_tensors
        queries, keys, dim = facts.heads
        rows, group = z.shape[0], queries // keys
        g = outputs[0].contiguous().view(rows, queries, dim)
        gz = torch.empty_like(z)
        dq, dk = z.new_empty(rows, queries, dim), z.new_empty(rows, keys, dim)
        dv = gz.view(rows, queries + 2 * keys, dim)[:, queries + keys :]
        for (start, stop, before), total in zip(facts.pieces(), sums, strict=True):
            one = slice(start, stop)
            # What is shared has its gradient in the first document; here it is no output.
            gy, attended = _joined(None, g[one], front + before), _joined(y, y[one], before)
            attended = _joined(None, attended, front)
            gy, attended = gy.transpose(0, 1)[None], attended.transpose(0, 1)[None]
            views = _views(turned, z, facts, start, stop, before, memory)
            q, k, v = _backward(gy, *views, attended, total, 0.0, True)
            if group > 1:
                k, v = (t.view(1, keys, group, -1, dim).sum(2) for t in (k, v))
            q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))
            if gm is not None:
                gm[0] += k[:front]
                gm[1] += v[:front]
            q, k, v = q[front:], k[front:], v[front:]
            dq[one], dk[one], dv[one] = q[before:], k[before:], v[before:]
            if before:
                dk[:before] += k[:before]
                dv[:before] += v[:before]
        g_query, g_key = facts.kernels.heads_backward(
            (dq.view(rows, -1), dk.view(rows, -1)), z, gz, inverse, ctx.gains, facts.turn, rows, facts.heads
        )
        return gz, g_query, g_key, gm, None


def _narrow_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    """Does the same for attention of 16-bit factors."""
    facts: _Heads = ctx.facts
    z, inverse = ctx.saved_tensors
    queries, keys, dim = facts.heads
    rows = z.shape[0]
    gz = torch.empty_like(z)
    dv = gz.view(rows, queries + 2 * keys, dim)[:, queries + keys :]
    # Once: computed again, they can be taken a single time.
    kept, ctx.narrow = ctx.narrow, ()
    dq, dk = packed_narrow.gradients(g.reshape(rows, queries, dim), kept, facts, dv)
    g_query, g_key = facts.kernels.heads_backward(
        (dq.view(rows, -1), dk.view(rows, -1)), z, gz, inverse, ctx.gains, facts.turn, rows, facts.heads
    )
    return gz, g_query, g_key, None, None


def _joined(whole: Tensor | None, part: Tensor, before: int) -> Tensor:
    """Puts the first rows of a tensor before another; zeros where there is none."""
    if not before:
        return part
    return torch.cat([part.new_zeros(before, *part.shape[1:]) if whole is None else whole[:before], part])


def _views(
    turned: Tensor,
    z: Tensor,
    facts: _Heads,
    start: int,
    stop: int,
    before: int,
    memory: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shows one document's queries, keys and values as attention wants them, [1, heads, T, dim].

    Keys and values that are no token's stand before them; their queries are zeros that nobody reads.
    """
    queries, keys, dim = facts.heads
    q, k = _joined(turned, turned[start:stop], before).split([queries, keys], 1)
    values = z.view(z.shape[0], queries + 2 * keys, dim)[:, queries + keys :]
    v = _joined(values, values[start:stop], before)
    if memory is not None:
        q = _joined(None, q, memory.shape[1])
        k, v = torch.cat([memory[0], k]), torch.cat([memory[1], v])
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    if queries > keys:
        k, v = (t.repeat_interleave(queries // keys, 1) for t in (k, v))
    return q, k, v
