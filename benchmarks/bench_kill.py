"""Killed at random moments and started again: are the final weights the same, bit for bit?

Each arm has an empty store. SIGKILL goes to the whole process group at a random moment of a step-budget
run; the same command is started again until it ends.

    python benchmarks/bench_kill.py --full
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from bench_budgets import stages

STEPS = 120


def main() -> None:
    """Runs an undisturbed arm and the killed ones and writes kill.json."""
    options = common.arguments(__doc__ or "")
    kills = 10 if options.full else 3
    chance = random.Random(20261124)
    with common.empty_store() as folder:
        start = time.perf_counter()
        whole = run(folder, None)
        seconds = time.perf_counter() - start
    arms = []
    for number in range(kills):
        moment = chance.uniform(0.15, 0.95) * seconds
        with common.empty_store() as folder:
            arm = run(folder, moment)
        arm |= {"killed_at_seconds": moment, "identical": arm["digest"] == whole["digest"]}
        arms.append(arm)
        print(f"kill {number + 1}: at {moment:.1f} s, identical: {arm['identical']}", file=sys.stderr)
    result = {
        "steps": STEPS,
        "undisturbed": {**whole, "seconds": seconds},
        "arms": arms,
        "kills": len(arms),
        "identical": sum(arm["identical"] for arm in arms),
        "ledgers_whole": sum(arm["ledger_whole"] for arm in arms),
    }
    common.write_result("kill" if options.full else "kill-quick", result)


def run(folder: Path, moment: float | None) -> dict[str, Any]:
    """Runs the recipe, killed once at a moment when one is given; gives the weights' hash."""
    parts = stages({"steps": STEPS, "model": {"family": "qwen3", "layers": 2, "width": 128, "heads": 2}})
    path = common.recipe(folder, "killed", {"seed": 3, "stages": parts})
    words = [sys.executable, "-m", "kogata.cli", "run", str(path), "--json"]
    starts = 0
    while True:
        starts += 1
        process = subprocess.Popen(
            words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            _, errors = process.communicate(timeout=moment if moment is not None and starts == 1 else 600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        if process.returncode != 0:
            raise SystemExit(errors.decode()[-3000:])
        break
    from kogata.core.artifact import sha256_of
    from kogata.runtime.ledger import read_receipts

    lines = (folder / "runs" / "killed" / "receipts.jsonl").read_bytes().splitlines()
    receipts = read_receipts(folder / "runs" / "killed")
    whole = all(json.loads(line) for line in lines) and len(receipts) == len(parts)
    made = next(item for item in receipts if item.stage == "train.pretrain")
    return {
        "digest": sha256_of(Path(made.path or "") / "model.safetensors"),
        "starts": starts,
        "ledger_whole": whole,
    }


if __name__ == "__main__":
    main()
