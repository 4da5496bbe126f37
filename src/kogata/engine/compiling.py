"""Whether torch.compile pays: what it saves of a training's time, and what it costs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kogata.core.amounts import format_seconds
from kogata.core.receipt import Machine
from kogata.engine.costs import fuses
from kogata.nn.ffns import GATED
from kogata.nn.spec import ModelSpec

OVER_TORCH = 0.88
"""Time of a step with it, over that of plain torch (benchmarks/bench_compile.py)."""
KERNELS_OVER_TORCH = 0.85
"""The same of our kernels, where they can compute the blocks: there torch.compile has nothing to save."""
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


def price_seconds(spec: ModelSpec, machine: Machine, lengths: int = 1) -> float:
    """Forecasts compiling for so many lengths of window; a slower machine compiles more slowly."""
    slower = USUAL_RATE / (machine.gemm_flops or USUAL_RATE)
    return slower * (FIRST_SECONDS + lengths * LAYER_SECONDS * spec.layers)


def forecast(
    spec: ModelSpec, machine: Machine, compile: object, curriculum: Any, context: int
) -> tuple[float, float]:
    """Gives the time of a step over that without torch.compile, and the seconds of compiling.

    Args:
        spec: the model.
        machine: what computes it.
        compile: the setting; True alone means torch.compile.
        curriculum: says which lengths of window there are.
        context: the longest.
    """
    if compile is not True or not machine.compiler:
        return 1.0, 0.0
    return OVER_TORCH, price_seconds(spec, machine, max(1, suits(spec, curriculum, context)))


def weigh(spec: ModelSpec, machine: Machine, seconds: float, lengths: int = 1) -> Compiling:
    """Weighs what torch.compile saves of so many seconds of plain torch's steps against its price.

    Args:
        spec: the model.
        machine: what computes it.
        seconds: of steps without it.
        lengths: of windows that training meets; each is compiled for.
    """
    saved = (1 - OVER_TORCH) * seconds
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


def choose(
    spec: ModelSpec, machine: Machine, seconds: float, curriculum: Any, context: int, processes: int
) -> tuple[bool, str]:
    """Says whether torch.compile is worth its price, and why; where there is no compiler, what that costs.

    Args:
        spec: the model.
        machine: what computes it.
        seconds: of training without it.
        curriculum: says which lengths of window there are.
        context: the longest.
        processes: that train; with several it was not measured, and is not tried.
    """
    if not machine.compiler:
        lost = format_seconds((1 - (KERNELS_OVER_TORCH if fuses(spec) else OVER_TORCH)) * seconds)
        return False, f"no C++ compiler was found: plain torch; with one, training would take {lost} less"
    usual = "small kernels, compiled in a second"
    if fuses(spec):
        return (
            False,
            f"{usual}: as fast as torch.compile, which takes {format_seconds(price_seconds(spec, machine))}",
        )
    lengths = suits(spec, curriculum, context)
    if not lengths or processes > 1:
        return False, usual
    weighed = weigh(spec, machine, seconds, lengths)
    return weighed.pays, str(weighed) if weighed.pays else f"{usual}; {weighed}"
