"""Causal attention over everything before: grouped queries, rotary positions, optional QK-norm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.cache import KeysValues
from kogata.nn.linear import linear
from kogata.nn.norm import make_norm
from kogata.nn.place import Place
from kogata.nn.rope import rotate
from kogata.nn.spec import ModelSpec


class Mixer(nn.Module):
    """Attends to all earlier tokens.

    Linear layers: `qkv` (rows of queries, then keys, then values) and `out`.
    """

    outputs = ("out",)
    """Layers that write into the residual stream: they start at zero."""
    window: int | None = None
    """Tokens one sees at most, itself included; None: all before it."""
    local = False
    """Takes the second of two rotary tables."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
        self.turns = spec.has_rope(layer)
        fused = spec.q_width + 2 * spec.kv_width
        self.qkv = linear(spec.width, fused, bias=spec.qkv_bias)
        self.out = linear(spec.q_width, spec.width)
        self.q_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.k_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.keeps = layer + 1 < spec.layers and spec.mixer(layer + 1) == "reuse"

    def parts(self) -> dict[str, dict[str, int]]:
        """States which layers other libraries keep apart: our layer → their names and rows, in order."""
        kv = self.kv_heads * self.head_dim
        return {"qkv": {"q_proj": self.heads * self.head_dim, "k_proj": kv, "v_proj": kv}}

    def new_state(self, batch: int, capacity: int) -> Any:
        """Makes an empty memory for `capacity` tokens."""
        return KeysValues(batch, self.kv_heads, capacity, self.head_dim, self.out.weight)

    def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
        """Mixes x [B, T, D]."""
        batch, tokens, _ = x.shape
        heads, kv_heads = self.heads, self.kv_heads
        qkv = self.qkv(x).view(batch, tokens, heads + 2 * kv_heads, self.head_dim)
        # split, not slices: its backward is one concatenation. Queries and keys turn together.
        qk, v = qkv.split([heads + kv_heads, kv_heads], 2)
        if place.values is not None:
            v = v + place.values.view(v.shape)
        if self.q_norm is not None and self.k_norm is not None:
            # Under autocast they come in 16 bits; gains and turns stay in float32.
            q, k = qk.to(self.q_norm.weight.dtype).split([heads, kv_heads], 2)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], 2)
        if self.turns:
            qk = rotate(qk, *place.table(self.head_dim, self.local))
        q, k = qk.split([heads, kv_heads], 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return self.out(self.attend(q, k, v, place, state).transpose(1, 2).reshape(batch, tokens, -1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place: Place, state: Any) -> Tensor:
        """Attends, [B, heads, T, head_dim] each."""
        if state is not None:
            k, v = state.append(k, v)
        if self.keeps:
            place.kept["last"] = k, v
        return attend(q, k, v, place)


def attend(q: Tensor, k: Tensor, v: Tensor, place: Place) -> Tensor:
    """Attends to all keys up to the query's own, which is the last one for the last query; or to all."""
    if not place.causal:
        return sdpa(q, k, v, causal=False)
    if place.documents is not None:
        return _per_document(q, k, v, place.documents, place.memory)
    if q.shape[2] == k.shape[2]:
        return sdpa(q, k, v, causal=True)
    return _continue(q, k, v)


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    """Torch's attention; several queries may share a key head."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def _continue(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    new, seen = q.shape[2], k.shape[2]
    if new == 1:
        return sdpa(q, k, v, causal=False)
    mask = torch.ones(new, seen, dtype=torch.bool, device=q.device).tril(seen - new)
    return sdpa(q, k, v, causal=False, mask=mask)


def _per_document(
    q: Tensor, k: Tensor, v: Tensor, documents: list[list[int]], memory: tuple[Tensor, Tensor] | None
) -> Tensor:
    rows = []
    for row, ends in enumerate(documents):
        pieces, start = [], 0
        for end in ends:
            one = (slice(row, row + 1), slice(None), slice(start, end))
            if memory is None:
                pieces.append(sdpa(q[one], k[one], v[one], causal=True))
            else:
                keys, values = torch.cat([memory[0], k[one]], 2), torch.cat([memory[1], v[one]], 2)
                pieces.append(_continue(q[one], keys, values))
            start = end
        rows.append(torch.cat(pieces, 2))
    return torch.cat(rows, 0)
