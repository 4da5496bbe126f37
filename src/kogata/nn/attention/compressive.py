"""Compressive memory beside a window: what left the window is still there, blurred, at a fixed size.

Pays when: very long sequences must be read with a cache that does not grow, and a hint of what lies far back
    is enough.
Hurts when: exact recall matters: a full layer in every few keeps it, this does not; replications of the paper
    at scale did worse than longer attention (arXiv 2512.23862 at 300M: better at 16k, falling with each
    compression).
Source: Infini-attention (arXiv 2404.07143); here with a sliding window in place of segments.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from kogata.nn import mixers
from kogata.nn.attention import window as windows

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.place import Place
    from kogata.nn.spec import ModelSpec


class Settings(windows.Settings):
    """How far a token sees sharply; the memory takes up whole segments of as many tokens."""


check = windows.check


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer."""
    local, size = windows.sizes(spec, layer, tokens), spec.settings(layer).of(spec)
    memory = spec.head_dim * (spec.head_dim + 1)
    far = 4 * spec.heads * memory if tokens > size else 0
    return mixers.Sizes(
        matrices=local.matrices,
        linears=local.linears,
        vectors=local.vectors + spec.heads,
        flops=local.flops + far,
        slowness=local.slowness + (1.5 if far else 0.0),
        cache_floats=local.cache_floats + 2 * spec.kv_heads * memory,
        kept=local.kept + 10 * spec.q_width,
    )


@cache
def _mixer() -> Any:
    import torch
    from torch import nn

    from kogata.nn import memory
    from kogata.nn.attention import full
    from kogata.nn.attention._blocks import attend_window
    from kogata.nn.cache import Recent
    from kogata.nn.rope import rotate

    class State(Recent):
        """The window's keys and values, the memory of whole segments, and that of the one being filled."""

        def __init__(
            self, batch: int, kv_heads: int, window: int, capacity: int, head_dim: int, like: Tensor
        ) -> None:
            super().__init__(batch, kv_heads, window, capacity, head_dim, like)
            self.whole = like.new_zeros(batch, kv_heads, head_dim, head_dim + 1)
            self.filling = torch.zeros_like(self.whole)
            self.filled = 0

        def rewind(self, length: int) -> None:
            """Stays as it is; what was compressed cannot be taken out again."""
            if length < self.length:
                raise NotImplementedError("a compressive memory has no way back")

        def read_and_write(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            """Reads for each query from the segments before its own, and takes up keys and values."""
            parts, at = [], 0
            while at < q.shape[2]:
                step = min(q.shape[2] - at, self.window - self.filled)
                one = slice(at, at + step)
                group = q.shape[1] // k.shape[1]
                parts.append(memory.read(q[:, :, one], self.whole.repeat_interleave(group, 1)))
                self.filling = self.filling + memory.written(k[:, :, one], v[:, :, one])
                self.filled += step
                at += step
                if self.filled == self.window:
                    self.whole, self.filling = self.whole + self.filling, torch.zeros_like(self.whole)
                    self.filled = 0
            return torch.cat(parts, 2)

    class Mixer(full.Mixer):
        """Attends to the last tokens and reads a memory of all before. `gate` [heads] weighs both."""

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__(spec, layer)
            self.window = spec.settings(layer).of(spec)
            self.local = spec.local_rope_theta is not None
            self.gate = nn.Parameter(torch.empty(spec.heads))

        @torch.no_grad()
        def initialise(self, generator: torch.Generator) -> None:
            """Starts with a tenth of memory."""
            self.gate.fill_(-2.2)

        def new_state(self, batch: int, capacity: int) -> Any:
            """Makes an empty memory."""
            assert self.window is not None
            return State(batch, self.kv_heads, self.window, capacity, self.head_dim, self.out.weight)

        def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
            """Mixes x [B, T, D]. What is compressed carries no positions."""
            assert self.window is not None
            batch, tokens, _ = x.shape
            heads, kv_heads = self.heads, self.kv_heads
            qkv = self.qkv(x).view(batch, tokens, heads + 2 * kv_heads, self.head_dim)
            q, k, v = qkv.split([heads, kv_heads, kv_heads], 2)
            if self.q_norm is not None and self.k_norm is not None:
                q, k = self.q_norm(q), self.k_norm(k)
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            if state is not None:
                far = state.read_and_write(q, k, v)
            else:
                far = _far(q, k, v, place, self.window)
            if self.turns:
                cos, sin = (part.transpose(-3, -2) for part in place.table(self.head_dim, self.local))
                q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if state is not None:
                k, v = state.append(k, v)
            near = attend_window(q, k, v, self.window, place)
            share = self.gate.sigmoid()[:, None, None]
            y = share * far + (1 - share) * near
            return self.out(y.transpose(1, 2).reshape(batch, tokens, -1))

    def _far(q: Tensor, k: Tensor, v: Tensor, place: Place, segment: int) -> Tensor:
        group = q.shape[1] // k.shape[1]
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        if place.documents is None:
            return memory.read_segments(q, k, v, segment)
        rows = []
        for row in range(len(q)):
            pieces = []
            for start, end in place.pieces(row):
                one = (slice(row, row + 1), slice(None), slice(start, end))
                pieces.append(memory.read_segments(q[one], k[one], v[one], segment))
            rows.append(torch.cat(pieces, 2))
        return torch.cat(rows)

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
