"""Full attention whose output is gated, with part of each head turned: qwen3_5's, beside gated_delta.

Pays when: the family is qwen3_5: its full layers are these.
Hurts when: any other family will do: the gate costs half as many weights again for queries.
Source: Gated Attention (arXiv 2505.06708); transformers' qwen3_5.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from kogata.core.variants import VariantSettings
from kogata.nn import mixers

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.place import Place
    from kogata.nn.spec import ModelSpec


class Settings(VariantSettings):
    """It has none; how much of a head turns is the model's `rotary_dim`."""


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer."""
    full = mixers.full_sizes(spec, tokens)
    (_, *rest) = full.matrices
    return mixers.Sizes(
        matrices=((2 * spec.q_width, spec.width), *rest),
        linears=((2 * spec.q_width + 2 * spec.kv_width, spec.width), (spec.width, spec.q_width)),
        vectors=2 * spec.head_dim,
        flops=full.flops,
        slowness=full.slowness + 600 / tokens,  # the gate and both norms
        cache_floats=full.cache_floats,
        kept=full.kept + 6 * spec.q_width,
    )


@cache
def _mixer() -> Any:
    import torch
    from torch import nn

    from kogata.nn.attention.full import attend
    from kogata.nn.cache import KeysValues
    from kogata.nn.linear import linear
    from kogata.nn.norm import make_norm
    from kogata.nn.rope import rotate

    class Mixer(nn.Module):
        """Attends to all earlier tokens. Linear layers: `qkv` (by head query, gate; keys; values), `out`."""

        outputs = ("out",)

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__()
            self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
            self.rotary = (spec.rotary_dim or spec.head_dim) if spec.has_rope(layer) else 0
            self.qkv = linear(spec.width, 2 * spec.q_width + 2 * spec.kv_width)
            self.out = linear(spec.q_width, spec.width)
            self.q_norm = make_norm(spec, spec.head_dim)
            self.k_norm = make_norm(spec, spec.head_dim)

        def parts(self) -> dict[str, dict[str, int]]:
            """States which layers other libraries keep apart: our layer → their names and rows, in order."""
            kv = self.kv_heads * self.head_dim
            return {"qkv": {"q_proj": 2 * self.heads * self.head_dim, "k_proj": kv, "v_proj": kv}}

        def new_state(self, batch: int, capacity: int) -> KeysValues:
            """Makes an empty memory for `capacity` tokens."""
            return KeysValues(batch, self.kv_heads, capacity, self.head_dim, self.out.weight)

        def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
            """Mixes x [B, T, D]."""
            batch, tokens, _ = x.shape
            qkv = self.qkv(x).view(batch, tokens, -1, self.head_dim)
            both, k, v = qkv.split([2 * self.heads, self.kv_heads, self.kv_heads], 2)
            q, gate = both[:, :, ::2], both[:, :, 1::2]
            q, k = self._turn(self.q_norm(q), place), self._turn(self.k_norm(k), place)
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            if state is not None:
                k, v = state.append(k, v)
            y = attend(q, k, v, place).transpose(1, 2)
            return self.out((y * gate.sigmoid()).reshape(batch, tokens, -1))

        def _turn(self, x: Tensor, place: Place) -> Tensor:
            if not self.rotary:
                return x
            cos, sin = place.table(self.rotary)
            if self.rotary == self.head_dim:
                return rotate(x, cos, sin)
            turned, rest = x.split([self.rotary, self.head_dim - self.rotary], -1)
            return torch.cat([rotate(turned, cos, sin), rest], -1)

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
