"""What torch.compile buys in a training step and what it costs, beside our kernels and plain torch.

Forward and backward pass of the loss, one model at a time, all ways in turn in one process (`steps`); the
seconds of the first call, and what a second length of window adds to them (`compiling`); the peak memory of
each way in a process of its own, its children counted (`memory`). `train.pretrain` decides `compile: auto` by
these figures.

    python benchmarks/bench_compile.py --full
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import common

SHAPES: dict[str, tuple[str, int, int, int, int, int]] = {
    "qwen3 3 x 128": ("qwen3", 3, 128, 4096, 256, 2048),
    "qwen3 4 x 256": ("qwen3", 4, 256, 4096, 256, 4096),
    "qwen3 8 x 384": ("qwen3", 8, 384, 8192, 256, 4096),
    "qwen2 4 x 256": ("qwen2", 4, 256, 4096, 256, 4096),
}
"""Family, layers, width, vocabulary, context, tokens of a step; qwen2's biases are not for our kernels."""
WAYS = ("torch", "kernels", "compile")


def setting(name: str) -> tuple[Any, dict[str, Callable[[], float]], Callable[[int], None]]:
    """Makes a model and a training pass of each way; the last one changes the windows' length."""
    import torch

    from kogata.engine.autosize import Extras, shape_of, spec_of
    from kogata.engine.objectives import LanguageModelling
    from kogata.engine.optimisers import hold_gains
    from kogata.engine.sampler import Batch
    from kogata.nn import fused
    from kogata.nn.decoder import Decoder
    from kogata.nn.kernels import Kernels

    family, layers, width, vocab_size, context, tokens = SHAPES[name]
    torch.set_flush_denormal(True)
    spec = spec_of(family, shape_of(family, layers, width), vocab_size, context, Extras())
    decoder = Decoder(spec, seed=0)
    hold_gains(decoder)
    kernels = Kernels.build()
    blocks = fused.FusedHidden(decoder, kernels) if kernels and fused.fits(decoder) else None
    compiled = torch.compile(decoder.hidden, dynamic=False)
    ways = {
        "torch": LanguageModelling(decoder),
        "kernels": LanguageModelling(decoder, blocks, kernels),
        "compile": LanguageModelling(decoder, compiled, kernels),
    }
    made: dict[str, Batch] = {}

    def cut(length: int) -> None:
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocab_size, (tokens // length, length + 1), generator=draw)
        made["batch"] = Batch(inputs=ids[:, :-1].contiguous(), targets=ids[:, 1:].contiguous())

    def way(objective: LanguageModelling) -> Callable[[], float]:
        def step() -> float:
            decoder.zero_grad(set_to_none=False)
            loss = objective(made["batch"], 1.0 / tokens)
            loss.backward()
            return float(loss.detach())

        return step

    cut(context)
    return decoder, {name: way(one) for name, one in ways.items()}, cut


def steps(name: str, rounds: int) -> dict[str, Any]:
    """Times the ways in turn."""
    from kogata.engine.heap import kept

    with tempfile.TemporaryDirectory(prefix="kogata-compile-") as cache, kept():
        # Nothing compiled before may help; memory is kept between steps as the training loop keeps it.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        return timed(name, rounds)


def timed(name: str, rounds: int) -> dict[str, Any]:
    """Times the ways in turn, in this process."""
    _, ways, cut = setting(name)
    context = SHAPES[name][4]
    first, losses = {}, {}
    for way, step in ways.items():
        start = time.perf_counter()
        losses[way] = step()
        first[way] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way in WAYS if turn % 2 else WAYS[::-1]:
            start = time.perf_counter()
            ways[way]()
            ways[way]()
            if turn:
                seconds[way].append((time.perf_counter() - start) / 2)
    cut(context // 2)
    start = time.perf_counter()
    ways["compile"]()
    again = time.perf_counter() - start
    median = {way: statistics.median(rows) for way, rows in seconds.items()}
    ratios = {
        way: [a / b for a, b in zip(seconds["compile"], seconds[way], strict=True)]
        for way in ("torch", "kernels")
    }
    return {
        "seconds": seconds,
        "median_seconds": median,
        "losses": losses,
        "compile_seconds": first["compile"] - median["compile"],
        "next_length_seconds": again - median["compile"],
        "ratio": {way: statistics.median(rows) for way, rows in ratios.items()},
        "ratio_quartiles": {way: statistics.quantiles(rows, n=4)[::2] for way, rows in ratios.items()},
    }


def memory(name: str, way: str) -> dict[str, int]:
    """Runs one way in a process of its own; gives the peak of it and its children."""
    import psutil

    child = subprocess.Popen(
        [sys.executable, __file__, "--alone", f"{name}:{way}"], stdout=subprocess.PIPE, text=True
    )
    peak, process = 0, psutil.Process(child.pid)
    while child.poll() is None:
        held = 0
        for one in (process, *process.children(recursive=True)):
            try:
                held += one.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, held)
        time.sleep(0.02)
    assert child.stdout is not None
    if child.returncode:
        raise SystemExit(f"{way} alone: exit code {child.returncode}")
    return {"tree_peak_bytes": peak, **json.loads(child.stdout.read())}


def alone(name: str, way: str) -> None:
    """Takes a few steps one way and prints this process's own peak."""
    import resource

    _, ways, _ = setting(name)
    for _ in range(4):
        ways[way]()
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main() -> None:
    """Measures all shapes and writes compile.json."""
    options = common.arguments(__doc__ or "", ("--alone", {"help": "a shape and a way, for one process"}))
    if options.alone:
        alone(*options.alone.split(":"))
        return
    names = list(SHAPES) if options.full else list(SHAPES)[:2]
    found = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, "-c", f"import bench_compile as b, json; print(json.dumps(b.steps({name!r}, "
             f"{8 if options.full else 5})))"],
            cwd=common.ROOT / "benchmarks", stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found[name] = json.loads(done.stdout.splitlines()[-1])
        row = found[name]
        print(f"{name}: {row['ratio']}, {row['compile_seconds']:.1f} s", file=sys.stderr, flush=True)
    held = {way: memory(names[1], way) for way in WAYS}
    print(held, file=sys.stderr)
    fused = [row["ratio"]["kernels"] for name, row in found.items() if not name.startswith("qwen2")]
    result = {
        "shapes": found,
        "memory": {"shape": names[1], **held},
        "ratio_to_kernels": statistics.median(fused),
        "ratio_to_torch": statistics.median(row["ratio"]["torch"] for row in found.values()),
        "compile_seconds": [row["compile_seconds"] for row in found.values()],
    }
    common.write_result("compile" if options.full else "compile-quick", result)


if __name__ == "__main__":
    main()
