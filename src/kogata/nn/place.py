"""Where the tokens of one forward pass stand: what every mixer is given beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """Positions and document borders of one forward pass."""

    cos: Tensor
    sin: Tensor
    """Rotary tables of these tokens, [T, 1, size] or [B, T, 1, size]; where windows have another base, its
    table stands behind the first one in the last dimension."""
    documents: list[list[int]] | None = None
    """Per row, where each document ends (the last entry is T); None: a row is one document."""
    memory: tuple[Tensor, Tensor] | None = None
    """Keys and values [1, kv_heads, n, head_dim] that every document sees before its own."""
    values: Tensor | None = None
    """What the layer at hand adds to its values, [B, T, kv_width]."""
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values that a later layer uses again (`nn/attention/reuse.py`)."""
    causal: bool = True
    """Whether a token sees those before it alone; full attention can do without."""

    def table(self, size: int, second: bool = False) -> tuple[Tensor, Tensor]:
        """Gives cosines and sines of the first or second base, `size` of them for each token."""
        if self.cos.shape[-1] == size:
            return self.cos, self.sin
        part = slice(size, 2 * size) if second else slice(0, size)
        return self.cos[..., part], self.sin[..., part]

    def pieces(self, row: int) -> list[tuple[int, int]]:
        """Gives start and end of each document in a row."""
        assert self.documents is not None
        ends = self.documents[row]
        return list(zip([0, *ends[:-1]], ends, strict=True))
