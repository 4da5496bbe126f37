"""Keys and values of the layer before: this layer has queries of its own and no cache.

Pays when: the cache, or the weights of keys and values, are what is short: every second layer reusing halves
    both.
Hurts when: quality matters more than the cache: a reusing layer knows a little less.
Source: Cross-Layer Attention (arXiv 2405.12981); `pattern: [full, reuse]` shares between two layers.
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
    """It has none."""


def source_of(spec: ModelSpec, layer: int) -> int | None:
    """Names the layer whose keys and values are used; None where there is none."""
    while layer >= 0 and spec.mixer(layer) == "reuse":
        layer -= 1
    return layer if layer >= 0 and spec.mixer(layer) in ("full", "window") else None


def check(spec: ModelSpec, settings: Settings, layer: int) -> tuple[str, str] | None:
    """Refuses a layer with nothing to use again."""
    if source_of(spec, layer) is None:
        return f"reuse in layer {layer + 1}", "full or window in a layer directly before it"
    return None


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer: it sees what the layer whose keys it uses sees."""
    matrices = mixers.attention_matrices(spec)
    source = source_of(spec, layer)
    assert source is not None, "a spec refuses it"
    seen = mixers.sizes_of(spec, source, tokens)
    return mixers.Sizes(
        matrices=(matrices[0], matrices[3]),
        vectors=spec.head_dim,
        flops=seen.flops,
        slowness=seen.slowness,
        kept=4 * spec.q_width,
    )


@cache
def _mixer() -> Any:
    from torch import nn

    from kogata.nn.attention._blocks import attend_window
    from kogata.nn.attention.full import attend
    from kogata.nn.cache import Nothing
    from kogata.nn.linear import linear
    from kogata.nn.norm import make_norm
    from kogata.nn.rope import rotate

    class Mixer(nn.Module):
        """Attends with the keys and values of an earlier layer. Linear layers: `q` and `out`."""

        outputs = ("out",)

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__()
            source = source_of(spec, layer)
            assert source is not None
            self.heads, self.head_dim, self.turns = spec.heads, spec.head_dim, spec.has_rope(layer)
            self.window = spec.settings(source).of(spec) if spec.mixer(source) == "window" else None
            self.local = self.window is not None and spec.local_rope_theta is not None
            self.q = linear(spec.width, spec.q_width)
            self.out = linear(spec.q_width, spec.width)
            self.q_norm = make_norm(spec, spec.head_dim)

        def parts(self) -> dict[str, dict[str, int]]:
            """States which layers other libraries keep apart: none."""
            return {}

        def new_state(self, batch: int, capacity: int) -> Nothing:
            """Remembers nothing: the other layer does."""
            return Nothing()

        def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
            """Mixes x [B, T, D]."""
            batch, tokens, _ = x.shape
            q = self.q_norm(self.q(x).view(batch, tokens, self.heads, self.head_dim))
            if self.turns:
                q = rotate(q, *place.table(self.head_dim, self.local))
            k, v = place.kept["last"]
            q = q.transpose(1, 2)
            if self.window is None:
                y = attend(q, k, v, place)
            else:
                y = attend_window(q, k, v, self.window, place)
            return self.out(y.transpose(1, 2).reshape(batch, tokens, -1))

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
