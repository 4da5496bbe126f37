"""Where the time of a training step goes: products, kernels, attention, head, optimiser, and what is left.

Steps as pretraining takes them (our kernels, AdamW and Muon), on random tokens. Kernels and attention are
timed where they are called, the head's part and the optimiser's as a whole, the blocks' products by computing
the same ones alone, in turn with the steps; the rest is what remains. Everything is wall-clock, medians over
the rounds; the same products at the rate of large ones stand beside it.

    python benchmarks/bench_parts.py --full
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor

from kogata.engine.optimisers import build_optimiser, hold_gains
from kogata.nn import fused
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.spec import ModelSpec
from kogata.runtime.machine import machine_profile

SHAPES = {"3 x 128": (3, 128), "3 x 192": (3, 192), "4 x 256": (4, 256), "6 x 384": (6, 384)}
VOCABULARY, CONTEXT, ROWS = 4096, 256, 8
CALLS = ("rms_forward", "rms_backward", "heads_forward", "heads_backward", "gate_forward", "gate_backward")


class Timed:
    """Adds up the seconds of the calls of some functions, under one name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Gives the function with its time taken."""

        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            found = call(*given, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            return found

        return timed


def measure(layers: int, width: int, rounds: int, kind: str) -> dict[str, Any]:
    """Takes steps of one shape apart."""
    kernels = Kernels.build()
    if kernels is None:
        raise SystemExit("no C compiler: there are no kernels to take apart")
    ffn = round(8 * width / 3 / 32) * 32
    sizes: dict[str, Any] = {"layers": layers, "width": width, "heads": width // 64, "ffn_width": ffn}
    spec = ModelSpec.of_family("qwen3", vocab_size=VOCABULARY, context=CONTEXT, tied=False, **sizes)
    decoder = Decoder(spec, seed=0)
    hold_gains(decoder)
    assert fused.fits(decoder)
    optimiser = build_optimiser(decoder, kind)
    timed = Timed()
    for name in CALLS:
        setattr(kernels, name, timed.wrap("kernels", getattr(kernels, name)))
    forward, backward = fused._forward, fused._backward
    hidden = fused.FusedHidden(decoder, kernels)
    ids = torch.randint(0, VOCABULARY, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    targets = ids.roll(-1, 1)
    alone = products(spec)
    found: dict[str, list[float]] = {}
    fused._forward, fused._backward = timed.wrap("attention", forward), timed.wrap("attention", backward)
    try:
        for turn in range(rounds + 2):
            timed.seconds.clear()
            parts: dict[str, float] = {}
            whole = began = time.perf_counter()
            x = hidden(ids)
            parts["forward"], began = time.perf_counter() - began, time.perf_counter()
            loss = linear_cross_entropy(
                x, decoder.head_weight, targets, scale=1 / ids.numel(), kernels=kernels
            )
            parts["head"], began = time.perf_counter() - began, time.perf_counter()
            loss.backward()
            parts["backward"], began = time.perf_counter() - began, time.perf_counter()
            torch.nn.utils.clip_grad_norm_(optimiser.parameters(), 1.0)
            optimiser.step(1.0, 0.5)
            optimiser.clear()
            parts["optimiser"] = time.perf_counter() - began
            parts["step"] = time.perf_counter() - whole
            parts |= timed.seconds
            began = time.perf_counter()
            alone()
            parts["products"] = time.perf_counter() - began
            blocks = parts.pop("forward") + parts.pop("backward")
            parts["rest"] = blocks - parts["kernels"] - parts["attention"] - parts["products"]
            if turn >= 2:
                for name, seconds in parts.items():
                    found.setdefault(name, []).append(seconds)
    finally:
        fused._forward, fused._backward = forward, backward
    flops = spec.flops_per_token(CONTEXT) * ids.numel()
    rate = machine_profile().gemm_flops
    median = {name: statistics.median(values) for name, values in found.items()}
    return {
        "seconds": found, "median_seconds": median, "flops": flops,
        "gemm_share": None if rate is None else flops / median["step"] / rate,
        "share": {name: value / median["step"] for name, value in median.items() if name != "step"},
    }  # fmt: skip


def products(spec: ModelSpec) -> Callable[[], None]:
    """Gives a function that computes the products of the blocks' forward and backward passes alone."""
    rows = ROWS * CONTEXT
    shapes = spec.linear_shapes(spec.layer_sizes()[0])
    made: list[tuple[Tensor, Tensor, Tensor]] = [
        (torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs))
        for outputs, inputs in shapes
    ]

    def run() -> None:
        for _ in range(spec.layers):
            for x, weight, grad in made:
                _ = x @ weight.t(), grad @ weight, grad.t() @ x

    return run


def main() -> None:
    """Measures every shape and writes parts.json."""
    options = common.arguments(__doc__ or "")
    rounds = 12 if options.full else 4
    names = list(SHAPES) if options.full else list(SHAPES)[:2]
    shapes: dict[str, Any] = {}
    for name in names:
        shapes[name] = {kind: measure(*SHAPES[name], rounds, kind) for kind in ("adamw", "muon")}
        said = {part: f"{share:.0%}" for part, share in shapes[name]["adamw"]["share"].items()}
        print(f"{name}: {said}", file=sys.stderr, flush=True)
    result = {"rounds": rounds, "tokens": ROWS * CONTEXT, "vocabulary": VOCABULARY, "shapes": shapes}
    common.write_result(
        "parts" if options.full else "parts-quick", {**result, "threads": torch.get_num_threads()}
    )


if __name__ == "__main__":
    main()
