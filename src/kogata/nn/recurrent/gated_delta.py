"""Gated DeltaNet: a memory of fixed size that overwrites what a key held before; linear in the length.

Pays when: sequences are long and the cache must stay small: time and memory of a new token do not grow.
Hurts when: sequences are short (below some 2,000 tokens attention is faster here), or exact recall of many
    items is asked of it without a full layer beside it.
Source: Gated Delta Networks (arXiv 2412.06464); as transformers' qwen3_5 has it, with one full layer in four.
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

CHUNK = 64
SLOWNESS = 8.6
"""Time of its small products, solves and passes per FLOP over that of large products: measured at width 256
with 256 tokens, one Zen 3 core."""


class Settings(VariantSettings):
    """Heads and their sizes; what is left out follows the model's attention heads."""

    heads: int | None = Field(default=None, ge=1)
    """Heads; by default as many as of attention."""
    key_dim: int | None = Field(default=None, ge=2)
    """Size of a key; by default a head's."""
    value_dim: int | None = Field(default=None, ge=2)
    """Size of a value; by default a head's."""
    conv: int = Field(default=4, ge=2, le=16)
    """Tokens of the short convolution before it."""

    def of(self, spec: ModelSpec) -> tuple[int, int, int]:
        """Gives heads, key size and value size in a model."""
        return self.heads or spec.heads, self.key_dim or spec.head_dim, self.value_dim or spec.head_dim


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer."""
    settings = spec.settings(layer)
    heads, key, value = settings.of(spec)
    inner, conv = heads * value, heads * (2 * key + value)
    width = spec.width
    # Per token and head: scores, the system, its solution, reading and writing the state.
    chunk = min(CHUNK, max(1, tokens))
    flops = heads * (4 * key * chunk + chunk * (key + value) + 2 * chunk * value + 6 * key * value)
    return mixers.Sizes(
        matrices=(
            (heads * key, width), (heads * key, width), (inner, width), (inner, width),
            (heads, width), (heads, width), (width, inner),
        ),
        linears=((conv + inner + 2 * heads, width), (width, inner)),
        vectors=settings.conv * conv + 2 * heads + value,
        flops=flops,
        slowness=SLOWNESS,
        cache_floats=heads * key * value + (settings.conv - 1) * conv,
        kept=4 * conv + 6 * inner + 9 * heads * chunk,
    )  # fmt: skip


@cache
def _mixer() -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from kogata.nn.cache import Last
    from kogata.nn.linear import linear
    from kogata.nn.recurrent._convolve import convolve, past_inputs
    from kogata.nn.recurrent._delta import gated_delta

    class Mixer(nn.Module):
        """Writes into and reads from a state. Linear layers: `inputs` (rows of queries, keys, values; gate;
        beta; decay) and `out`; `taps` [C, 1, K]; `decay` and `bias` [heads]; the gain `norm` [value_dim]."""

        outputs = ("out",)

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__()
            settings = spec.settings(layer)
            self.heads, self.key_dim, self.value_dim = settings.of(spec)
            self.conv = settings.conv
            self.mixed = self.heads * (2 * self.key_dim + self.value_dim)
            inner = self.heads * self.value_dim
            self.inputs = linear(spec.width, self.mixed + inner + 2 * self.heads)
            self.out = linear(inner, spec.width)
            self.taps = nn.Parameter(torch.empty(self.mixed, 1, self.conv))
            self.decay = nn.Parameter(torch.empty(self.heads))
            self.bias = nn.Parameter(torch.empty(self.heads))
            # Its gain is the weight itself, also in families whose other norms add one.
            self.norm = nn.RMSNorm(self.value_dim, eps=spec.norm_eps)

        @torch.no_grad()
        def initialise(self, generator: torch.Generator) -> None:
            """Starts with memories of a few to a thousand tokens, and the convolution as the token itself."""
            self.taps.normal_(0.0, 0.3, generator=generator)
            self.taps[:, 0, -1] += 1.0
            self.decay.copy_(torch.empty(self.heads).uniform_(1.0, 16.0, generator=generator).log())
            steps = torch.empty(self.heads).uniform_(-6.9, -2.3, generator=generator).exp()
            self.bias.copy_(steps.expm1().log())

        def parts(self) -> dict[str, dict[str, int]]:
            """States which layers other libraries keep apart: our layer → their names and rows, in order."""
            inner = self.heads * self.value_dim
            rows = {"in_proj_qkv": self.mixed, "in_proj_z": inner}
            return {"inputs": {**rows, "in_proj_b": self.heads, "in_proj_a": self.heads}}

        def new_state(self, batch: int, capacity: int) -> Last:
            """Makes an empty memory."""
            return Last()

        def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
            """Mixes x [B, T, D]."""
            batch, tokens, _ = x.shape
            heads = self.heads
            mixed, gate, beta, pace = self.inputs(x).split(
                [self.mixed, heads * self.value_dim, heads, heads], -1
            )
            past = past_inputs(mixed, self.conv, state)
            mixed = F.silu(convolve(mixed, self.taps, place, past))
            inner = heads * self.key_dim
            q, k, v = mixed.split([inner, inner, heads * self.value_dim], -1)
            q, k = (_unit(y.view(batch, tokens, heads, self.key_dim)).transpose(1, 2) for y in (q, k))
            v = v.view(batch, tokens, heads, self.value_dim).transpose(1, 2)
            decay = (-self.decay.exp() * F.softplus(pace + self.bias)).transpose(1, 2)
            given = q * self.key_dim**-0.5, k, v, decay, beta.sigmoid().transpose(1, 2)
            if place.documents is not None:
                y = _per_document(given, place)
            else:
                y, after = gated_delta(*given, None if state is None else state.tensors.get("state"))
                if state is not None:
                    state.tensors["state"] = after
            y = self.norm(y.transpose(1, 2)).flatten(2)
            return self.out(y * F.silu(gate))

    def _unit(y: Tensor) -> Tensor:
        return y * torch.rsqrt(y.square().sum(-1, keepdim=True) + 1e-6)

    def _per_document(given: tuple[Tensor, ...], place: Place) -> Tensor:
        rows = []
        for row in range(len(given[0])):
            pieces = [
                gated_delta(*(part[row : row + 1, :, start:end] for part in given))[0]
                for start, end in place.pieces(row)
            ]
            rows.append(torch.cat(pieces, 2))
        return torch.cat(rows)

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
