"""Products in bf16 against float32, where the processor has them: at equal time, and at equal rows.

- pretrain: the main job on the examples' novels, every arm as many seconds of training, each with the shape
  that `auto` chooses for its rate; and both with one shape.
- finetune: LoRA of SmolLM2-135M on the examples' bookings, equal rows: seconds, and loss of held-out answers.

Runs through `kogata compare`: seeds are paired, arms run in turn. Measures nothing on a processor without
16-bit products.

    python benchmarks/bench_precision.py --full [--part pretrain|finetune] [--seconds 75] [--seeds 3]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common
from bench_budgets import stages

BOOKINGS = str(common.ROOT / "examples" / "data" / "bookings" / "bookings.csv")
SHAPE = {"family": "qwen3", "layers": 3, "width": 128}


def main() -> None:
    """Runs the comparisons and writes precision.json."""
    options = common.arguments(
        __doc__ or "",
        ("--part", {"choices": ["pretrain", "finetune"], "help": "only this one"}),
        ("--seconds", {"type": float, "help": "of training, for pretrain"}),
        ("--seeds", {"type": int, "help": "paired"}),
    )
    from kogata.runtime.machine import machine_profile

    machine = machine_profile()
    if not machine.bf16_flops:
        print("this processor has no fast 16-bit products: nothing measured", file=sys.stderr)
        return
    seconds = options.seconds or (75.0 if options.full else 30.0)
    seeds = options.seeds or (3 if options.full else 1)
    parts = [options.part] if options.part else ["pretrain", "finetune"]
    result: dict[str, Any] = {"bf16_flops": machine.bf16_flops, "seconds": seconds, "seeds": seeds}
    with common.empty_store() as folder:
        if "pretrain" in parts:
            for name, model in (("pretrain_auto", {}), ("pretrain", SHAPE)):
                # The main job to its evaluation; what is exported is not asked here.
                job = stages({"time": f"{seconds:g}s", "precision": "fp32", "model": model})[:-1]
                result[name] = compare(folder, name, job, "train.pretrain", seeds)
        if "finetune" in parts:
            read = {
                "path": BOOKINGS,
                "columns": {"prompt": "message", "completion": "booking"},
                "heldout": 0.1,
            }
            tune = {"epochs": 2, "lr": 1e-3, "batch": 8, "precision": "fp32"}
            job = [{"data.read": read}, {"model.read": {"name": "smollm2"}}, {"train.finetune": tune}]
            result["finetune"] = compare(
                folder, "finetune", [*job, {"evaluate": {"answers": 0}}], "train.finetune", seeds
            )
    name = "precision" if options.full else "precision-quick"
    common.write_result("-".join(filter(None, [name, options.part])), result)


def compare(folder: Path, name: str, job: list[Any], stage: str, seeds: int) -> dict[str, Any]:
    """Compares both formats and gives the values of every seed with their difference."""
    path = common.recipe(folder, name, {"stages": job})
    words = ["compare", str(path), "--set", f"{stage}.precision=bf16", "--seeds", str(seeds)]
    found = common.kogata(*words, cwd=folder)
    from kogata.runtime.ledger import read_receipts

    arms: dict[str, Any] = {}
    for row, form in zip(found["rows"], ("fp32", "bf16"), strict=True):
        trained = []
        for place in found["folders"][row["variant"]]:
            receipts = read_receipts(folder / found["path"] / place)
            trained.append(next(item for item in receipts if item.stage == stage).facts["training"])
        arms[form] = {
            "measures": {key: value["values"] for key, value in row["measures"].items()},
            "steps": [one["steps"] for one in trained],
            "tokens": [one["tokens"] for one in trained],
        }
        print(f"{name}, {form}: {arms[form]}", file=sys.stderr)
    judged = found["rows"][1]["measures"][found["judged_by"]]
    times = arms["bf16"]["measures"]["training_seconds"], arms["fp32"]["measures"]["training_seconds"]
    return {
        "arms": arms,
        "judged_by": found["judged_by"],
        "difference": judged["difference"],
        "verdict": judged["verdict"],
        "more_steps": [b / a for a, b in zip(arms["fp32"]["steps"], arms["bf16"]["steps"], strict=True)],
        "time_share": [half / whole for half, whole in zip(*times, strict=True)],
    }


if __name__ == "__main__":
    main()
