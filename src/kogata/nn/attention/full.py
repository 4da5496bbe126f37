"""Causal attention over everything before: grouped queries, rotary positions, optional QK-norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.cache import KeysValues
from kogata.nn.linear import linear
from kogata.nn.place import Place
from kogata.nn.rope import rotate
from kogata.nn.spec import ModelSpec


class Mixer(nn.Module):
    """Attends to all earlier tokens.

    Linear layers: `qkv` (rows of queries, then keys, then values) and `out`.
    """

    outputs = ("out",)
    """Layers that write into the residual stream: they start at zero."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
        self.turns = spec.has_rope(layer)
        fused = spec.q_width + 2 * spec.kv_width
        self.qkv = linear(spec.width, fused, bias=spec.qkv_bias)
        self.out = linear(spec.q_width, spec.width)
        self.q_norm = nn.RMSNorm(spec.head_dim, eps=spec.norm_eps) if spec.qk_norm else None
        self.k_norm = nn.RMSNorm(spec.head_dim, eps=spec.norm_eps) if spec.qk_norm else None

    def parts(self) -> dict[str, dict[str, int]]:
        """States which layers other libraries keep apart: our layer → their names and rows, in order."""
        kv = self.kv_heads * self.head_dim
        return {"qkv": {"q_proj": self.heads * self.head_dim, "k_proj": kv, "v_proj": kv}}

    def new_state(self, batch: int, capacity: int) -> KeysValues:
        """Makes an empty memory for `capacity` tokens."""
        return KeysValues(batch, self.kv_heads, capacity, self.head_dim, self.out.weight)

    def forward(self, x: Tensor, place: Place, state: KeysValues | None = None) -> Tensor:
        """Mixes x [B, T, D]."""
        batch, tokens, _ = x.shape
        heads, kv_heads = self.heads, self.kv_heads
        qkv = self.qkv(x).view(batch, tokens, heads + 2 * kv_heads, self.head_dim)
        # split, not slices: its backward is one concatenation. Queries and keys turn together.
        qk, v = qkv.split([heads + kv_heads, kv_heads], 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([heads, kv_heads], 2)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], 2)
        if self.turns:
            qk = rotate(qk, place.cos, place.sin)
        q, k = qk.split([heads, kv_heads], 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if place.documents is not None:
            y = _per_document(q, k, v, place.documents)
        elif state is None:
            y = _attend(q, k, v, causal=True)
        else:
            y = _continue(q, *state.append(k, v))
        return self.out(y.transpose(1, 2).reshape(batch, tokens, -1))


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def _continue(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    new, seen = q.shape[2], k.shape[2]
    if new == seen:
        return _attend(q, k, v, causal=True)
    if new == 1:
        return _attend(q, k, v, causal=False)
    mask = torch.ones(new, seen, dtype=torch.bool, device=q.device).tril(seen - new)
    return _attend(q, k, v, causal=False, mask=mask)


def _per_document(q: Tensor, k: Tensor, v: Tensor, documents: list[list[int]]) -> Tensor:
    rows = []
    for row, ends in enumerate(documents):
        pieces, start = [], 0
        for end in ends:
            one = (slice(row, row + 1), slice(None), slice(start, end))
            pieces.append(_attend(q[one], k[one], v[one], causal=True))
            start = end
        rows.append(torch.cat(pieces, 2))
    return torch.cat(rows, 0)
