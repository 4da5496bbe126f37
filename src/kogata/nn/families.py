"""Families: the graphs that transformers, and mostly llama.cpp, build by name; what each can express.

Imports no torch. `kogata` is our own: everything our decoder can compute, loaded by transformers only with
`trust_remote_code`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is fixed in a family's graph, and what may be chosen."""

    mixers: tuple[str, ...] | None = ("full",)
    """Mixers it has; None: any."""
    ffns: tuple[str, ...] | None = ("swiglu",)
    """Feed-forward parts it has, the usual one first; None: any."""
    qk_norm: bool = False
    qkv_bias: bool = False
    divides: bool = True
    """The heads divide the width."""
    head_is_share: bool = False
    """A head is width / heads."""
    skips_positions: bool = False
    """Layers without positions may be."""
    centred_norms: bool = False
    """A norm multiplies by 1 + its weight."""
    sandwich_norms: bool = False
    """Mixer and feed-forward part are normalised after, too."""
    scaled_embedding: bool = False
    """Embeddings are multiplied by √width."""
    local_theta: float | None = None
    """Base of the rotary frequencies in windows, where it is another."""
    rotary_share: float | None = None
    """How much of a head turns, where it is not all of it."""
    pattern: tuple[Any, ...] = ("full",)
    """What `pattern` means when it is not given."""
    own: bool = False
    """Sharing, factorised embeddings and plug-ins' mixers may be."""


FAMILY: dict[str, Family] = {
    "llama": Family(),
    "qwen2": Family(qkv_bias=True, head_is_share=True, mixers=("full", "window")),
    "qwen3": Family(qk_norm=True, divides=False, mixers=("full", "window")),
    "smollm3": Family(head_is_share=True, skips_positions=True),
    "arcee": Family(ffns=("relu2",)),
    "gemma3": Family(
        mixers=("full", "window"),
        ffns=("geglu",),
        qk_norm=True,
        centred_norms=True,
        sandwich_norms=True,
        scaled_embedding=True,
        local_theta=10_000.0,
        pattern=("window",) * 5 + ("full",),
    ),
    "lfm2": Family(mixers=("full", "short_conv"), qk_norm=True, pattern=("short_conv", "short_conv", "full")),
    "qwen3_5": Family(
        mixers=("gated_full", "gated_delta"),
        qk_norm=True,
        divides=False,
        centred_norms=True,
        rotary_share=0.25,
        pattern=("gated_delta",) * 3 + ("gated_full",),
    ),
    "kogata": Family(mixers=None, ffns=None, qk_norm=True, divides=False, skips_positions=True, own=True),
}


def having(field: str, value: str) -> str:
    """Names the families that can express a mixer (`mixers`) or a feed-forward part (`ffns`)."""
    found = [name for name, family in FAMILY.items() if value in (getattr(family, field) or (value,))]
    return " | ".join(found)
