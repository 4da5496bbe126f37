"""Gated short convolution: out(C ⊙ conv(B ⊙ x)) over three tokens; no cache but the last two inputs.

Pays when: speed and memory count and every third layer or so is attention: it costs four products a token,
    whatever the length.
Hurts when: it stands alone: it recalls nothing that lies further back than layers · 2 tokens.
Source: LFM2 (arXiv 2511.23404, section 2); what convolutions cannot recall: Zoology (arXiv 2312.04927).
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

SLOWNESS = 128.0
"""Time of its few operations per float over that of as many FLOPs in large products: memory decides it.
Measured at width 256 with 256 and 2,048 tokens, one Zen 3 core: 125 and 131."""


class Settings(VariantSettings):
    """How far the convolution reaches."""

    size: int = Field(default=3, ge=2, le=16)
    """Tokens it sees, itself included."""


def sizes(spec: ModelSpec, layer: int, tokens: int) -> mixers.Sizes:
    """Counts the layer."""
    width, size = spec.width, spec.settings(layer).size
    return mixers.Sizes(
        matrices=((width, width),) * 4,
        linears=((3 * width, width), (width, width)),
        vectors=size * width,
        flops=2 * (size + 1) * width,
        slowness=SLOWNESS,
        cache_floats=(size - 1) * width,
        kept=6 * width,
    )


@cache
def _mixer() -> Any:
    import torch
    from torch import nn

    from kogata.nn.cache import Last
    from kogata.nn.linear import linear
    from kogata.nn.recurrent._convolve import convolve, past_inputs

    class Mixer(nn.Module):
        """Convolves. Linear layers: `gates_in` (rows of B, C and x) and `out`; `taps` [D, 1, K]."""

        outputs = ("out",)

        def __init__(self, spec: ModelSpec, layer: int) -> None:
            super().__init__()
            self.size = spec.settings(layer).size
            self.gates_in = linear(spec.width, 3 * spec.width)
            self.out = linear(spec.width, spec.width)
            self.taps = nn.Parameter(torch.empty(spec.width, 1, self.size))

        @torch.no_grad()
        def initialise(self, generator: torch.Generator) -> None:
            """Starts as the token itself with a little of those before it."""
            self.taps.normal_(0.0, 0.3, generator=generator)
            self.taps[:, 0, -1] += 1.0

        def parts(self) -> dict[str, dict[str, int]]:
            """States which layers other libraries keep apart: none."""
            return {}

        def new_state(self, batch: int, capacity: int) -> Last:
            """Makes an empty memory."""
            return Last()

        def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
            """Mixes x [B, T, D]."""
            before, after, inner = self.gates_in(x).chunk(3, -1)
            inner = before * inner
            past = past_inputs(inner, self.size, state)
            return self.out(after * convolve(inner, self.taps, place, past))

    return Mixer


def __getattr__(name: str) -> Any:
    # The module class is made when it is asked for: plans read this file and never import torch.
    if name == "Mixer":
        return _mixer()
    raise AttributeError(name)
