"""Sliding window: each token sees the last `size` tokens, in time and memory that grow with T, not T².

Pays when: sequences are several windows long: with one full layer in four to eight, most of the attention's
    time is saved and little is forgotten.
Hurts when: sequences are shorter than two windows, or no layer sees everything: what lies further back than
    layers · size is lost.
Source: Longformer (arXiv 2004.05150); one global layer in six: Gemma 3 (arXiv 2503.19786, section 2).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.nn import mixers

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.place import Place
    from kogata.nn.spec import ModelSpec

USUAL = 256
BLOCK = 64
"""Queries worked on together, at most: fewer waste fewer scores, more make larger products."""


class Settings(VariantSettings):
    """How far a token sees."""

    size: int | None = Field(default=None, ge=2)
    """Tokens one sees, itself included; by default 256, or the context where that is shorter."""

    def of(self, spec: ModelSpec) -> int:
        """Gives the tokens of the window in a model."""
        return self.size or min(USUAL, spec.context)


def block_of(window: int) -> int:
    """Gives the queries of a block."""
    return min(BLOCK, max(16, window))


NARROW = 0.5
"""Share of the time that is left where factors are rounded to 16 bits: window of 256, 4,096 tokens, Zen 5."""


def slowness(size: int) -> float:
    """Gives the time of its products, masked ones and their masks included, per FLOP that counts.

    Measured with windows of 64 and 256 tokens, heads of 64, one Zen 3 core: 7.2 and 3.5.
    """
    return 2.3 + 315 / size


def check(spec: ModelSpec, settings: Settings, layer: int) -> tuple[str, str] | None:
    """Refuses a window beyond the context: it would be full attention under another name."""
    if settings.of(spec) > spec.context:
        return f"a window of {settings.size} tokens", f"at most the context of {spec.context}"
    return None


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer."""
    size = spec.settings(layer).of(spec)
    return mixers.Sizes(
        matrices=mixers.attention_matrices(spec),
        linears=mixers.attention_linears(spec),
        vectors=mixers.head_vectors(spec),
        flops=4 * spec.q_width * mixers.seen_on_average(size, tokens),
        slowness=mixers.attention_slowness(tokens) if tokens <= size else slowness(size),
        narrow=mixers.NARROW if tokens <= size else NARROW,
        cache_floats=2 * spec.kv_width * min(tokens, 2 * size),
        kept=2 * spec.q_width + 2 * spec.kv_width,
    )


@cache
def _mixer() -> Any:
    from kogata.nn.attention import full
    from kogata.nn.attention._blocks import attend_window
    from kogata.nn.cache import Recent

    class Mixer(full.Mixer):
        """Attends to the last tokens. Linear layers: `qkv` and `out`, as in full attention."""

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__(spec, layer)
            self.window = spec.settings(layer).of(spec)
            self.local = spec.local_rope_theta is not None

        def new_state(self, batch: int, capacity: int) -> Any:
            """Makes an empty memory of the last tokens."""
            assert self.window is not None
            return Recent(batch, self.kv_heads, self.window, capacity, self.head_dim, self.out.weight)

        def attend(self, q: Tensor, k: Tensor, v: Tensor, place: Place, state: Any) -> Tensor:
            """Attends, [B, heads, T, head_dim] each."""
            assert self.window is not None
            if state is not None:
                k, v = state.append(k, v)
            if self.keeps:
                place.kept["last"] = k, v
            return attend_window(q, k, v, self.window, place)

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
