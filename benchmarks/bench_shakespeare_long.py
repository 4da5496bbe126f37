"""Tiny Shakespeare by character in twenty minutes on a CPU: how near to nanoGPT's recipe for a GPU.

That recipe reaches 1.4697 nats with a 10.7M model after 5,000 iterations on a GPU (its README). Here Kogata
trains within the seconds, everything from data in memory to final weights counted, with blocks of 256, and is
scored over the whole validation part (the last tenth) in blocks of 256 by plain transformers. What is given
by `--set` is tried beside the default, in turn, with the same seed.

    python benchmarks/bench_shakespeare_long.py --full [--seconds 1200] [--seeds 1] \
        [--set '{"model": {"layers": 4, "width": 256}, "dropout": 0.1}']
"""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import bench_shakespeare
import common

BLOCK = 256
BAR = 1.50
DATA = common.ROOT / "examples" / "data" / "shakespeare" / "input.txt.gz"


def main() -> None:
    """Trains every arm and writes shakespeare-long.json."""
    options = common.arguments(
        __doc__ or "",
        ("--seconds", {"type": float, "help": "of training, everything counted"}),
        ("--seeds", {"type": int, "default": 1, "help": "paired over the arms"}),
        ("--set", {"action": "append", "default": [], "help": "settings of train.pretrain, as JSON"}),
        ("--only", {"action": "store_true", "help": "leave the default out"}),
    )
    seconds = options.seconds or (1200.0 if options.full else 120.0)
    given = [json.loads(text) for text in options.set]
    settings: list[dict[str, Any]] = given if options.only and given else [{}, *given]
    text = gzip.open(DATA, "rt", encoding="utf-8").read()
    arms: list[dict[str, Any]] = [{"settings": one, "runs": []} for one in settings]
    with common.empty_store() as folder:
        for seed in range(options.seeds):
            for number, arm in enumerate(arms):
                more = {"context": BLOCK, **arm["settings"]}
                name = f"shakespeare-{number}-{seed}"
                row = bench_shakespeare.run_ours(
                    folder, text, seconds, seed, name=name, more=more, block=BLOCK
                )
                arm["runs"].append(row)
                print(f"{arm['settings']}: {row}", file=sys.stderr, flush=True)
    best = min(row["loss"] for arm in arms for row in arm["runs"])
    result = {"seconds": seconds, "block": BLOCK, "arms": arms, "best_loss": best, "bar": BAR}
    common.write_result(
        "shakespeare-long" if options.full else "shakespeare-long-quick", {**result, "reached": best <= BAR}
    )


if __name__ == "__main__":
    main()
