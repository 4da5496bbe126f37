"""Whether torch.compile pays: what it saves of a training's time, and what it costs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kogata.core.amounts import format_seconds
from kogata.core.receipt import Machine
from kogata.engine.costs import fuses
from kogata.nn.ffns import GATED
from kogata.nn.spec import ModelSpec

OVER_KERNELS = 0.96
"""Time of a step with it, over that with our kernels (benchmarks/bench_compile.py)."""
OVER_TORCH = 0.88
"""The same over plain torch, where our kernels cannot compute the blocks."""
FIRST_SECONDS, LAYER_SECONDS = 14.0, 2.3
"""Compiling on two Zen 3 cores at 184 GFLOP/s: once a process, and per layer and length of window."""
USUAL_RATE = 184e9
MARGIN = 1.5
"""It must save this many times what it costs: neither figure is certain."""


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """What torch.compile would mean for one training."""

    saved_seconds: float
    price_seconds: float

    @property
    def pays(self) -> bool:
        """Says whether it saves clearly more than it costs."""
        return self.saved_seconds > MARGIN * self.price_seconds

    def __str__(self) -> str:
        saved, price = format_seconds(self.saved_seconds), format_seconds(self.price_seconds)
        return f"torch.compile would save about {saved} and cost {price}"


def step_ratio(spec: ModelSpec, machine: Machine) -> float:
    """Gives the time of a compiled step over one of kernels, or of plain torch where those cannot be."""
    return OVER_KERNELS if machine.compiler and fuses(spec) else OVER_TORCH


def price_seconds(spec: ModelSpec, machine: Machine, lengths: int = 1) -> float:
    """Forecasts compiling for so many lengths of window; a slower machine compiles more slowly."""
    slower = USUAL_RATE / (machine.gemm_flops or USUAL_RATE)
    return slower * (FIRST_SECONDS + lengths * LAYER_SECONDS * spec.layers)


def weigh(spec: ModelSpec, machine: Machine, seconds: float, lengths: int = 1) -> Compiling:
    """Weighs what torch.compile saves of so many seconds of steps against its price.

    Args:
        spec: the model.
        machine: what computes it.
        seconds: of steps without it.
        lengths: of windows that training meets; each is compiled for.
    """
    saved = (1 - step_ratio(spec, machine)) * seconds
    return Compiling(saved_seconds=saved, price_seconds=price_seconds(spec, machine, lengths))


def suits(spec: ModelSpec, curriculum: Any, context: int) -> int:
    """Counts the lengths of window to compile for; 0 where it is not to be tried.

    Compiling is measured for attention and dense feed-forward parts, and for windows of few lengths.
    """
    variant = getattr(curriculum, "variant", None)
    plain = set(spec.mixers or ()) <= {"full", "window"} and spec.ffn in (*GATED, "relu2")
    if not plain or not hasattr(variant, "lengths"):
        return 0
    assert variant is not None
    return len(variant.lengths(context, curriculum.settings)[0])


def choose(spec: ModelSpec, machine: Machine, seconds: float, lengths: int) -> tuple[bool, str]:
    """Says whether torch.compile is worth its price, and why; where there is no compiler, what that costs.

    Args:
        spec: the model.
        machine: what computes it.
        seconds: of training without it.
        lengths: of windows that training meets; 0: it is not to be tried.
    """
    if not machine.compiler:
        lost = format_seconds((1 - OVER_TORCH / OVER_KERNELS) * seconds)
        return False, f"no C++ compiler was found: plain torch; with one, training would take {lost} less"
    usual = "small kernels, compiled in a second"
    if not lengths:
        return False, usual
    weighed = weigh(spec, machine, seconds, lengths)
    return weighed.pays, str(weighed) if weighed.pays else f"{usual}; {weighed}"
