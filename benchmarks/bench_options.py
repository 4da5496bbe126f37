"""Settings of train.pretrain against the default, at equal time, on English novels: what is worth a default.

Every arm is the default recipe with some settings changed; arms run in turn with the same seeds, the order
alternating, each scored on the whole held-out set. The clock is train.pretrain's own, everything counted.
With `--tokens` arms see equal text in place of equal time, and processor time is told: for a busy computer.
What is measured later is added to the same result file, each set of arms under its name.

    python benchmarks/bench_options.py --full --name start --arm '{"look_back": 2}' [--seconds 96] [--seeds 3]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bench_novels
import common


def train(
    folder: Path,
    corpus: dict[str, str],
    settings: dict[str, Any],
    label: str,
    length: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Trains one arm once and scores it."""
    changed = {**length, **settings}
    stages: list[dict[str, Any]] = [
        {"data.read": corpus},
        {"tokenizer.train": changed.pop("tokenizer", {})},
        {"tokenizer.encode": {}},
        {"train.pretrain": changed},
        {"evaluate": {"limit": "all", "minimal_pairs": False, "sample_tokens": 0}},
    ]
    path = common.recipe(folder, label, {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    by_stage = {item.stage: item for item in read_receipts(folder / "runs" / label)}
    trained = by_stage["train.pretrain"]
    assert trained.cost is not None
    training = trained.facts["training"]
    row = {
        "seed": seed, "bits_per_byte": by_stage["evaluate"].facts["bits_per_byte"]["value"],
        "steps": training["steps"], "tokens": training["tokens"], "wall_seconds": trained.cost.seconds,
        "cpu_seconds": trained.cost.cpu_seconds, "parameters": trained.facts["parameters"],
        "lr": training["lr"],
    }  # fmt: skip
    print(f"{label}: {row}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    """Runs the arms and adds them to options.json."""
    options = common.arguments(
        __doc__ or "",
        ("--corpus", {"help": "folder with prose/ and heldout/"}),
        ("--name", {"default": "arms", "help": "of this set of arms in the result file"}),
        ("--arm", {"action": "append", "default": [], "help": "settings, as JSON; `tokenizer` for its own"}),
        ("--seconds", {"type": float, "help": "of training"}),
        ("--tokens", {"help": "of training, in place of seconds"}),
        ("--seeds", {"type": int, "help": "paired over the arms"}),
    )
    if not options.arm:
        print("left out: nothing is compared; name settings by --arm", file=sys.stderr)
        return
    from kogata.core.statistics import paired

    train_text, held = bench_novels.places(options.corpus)
    corpus = {"path": train_text, "heldout": held}
    seconds = options.seconds or (96.0 if options.full else 30.0)
    length = {"tokens": options.tokens} if options.tokens else {"time": f"{seconds:g}s"}
    seeds = list(range(options.seeds or (3 if options.full else 1)))
    settings: list[dict[str, Any]] = [{}, *map(json.loads, options.arm)]
    rows: list[list[dict[str, Any]]] = [[] for _ in settings]
    name = "options" if options.full else "options-quick"
    path = common.RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with common.empty_store() as folder:
        for turn, seed in enumerate(seeds):
            order = list(range(len(settings)))
            for number in order if turn % 2 == 0 else order[::-1]:
                label = f"{options.name}-{number}-{seed}"
                rows[number].append(train(folder, corpus, settings[number], label, length, seed))
    arms = []
    for changed, found in zip(settings, rows, strict=True):
        arm: dict[str, Any] = {"settings": changed, "runs": found}
        if changed and len(seeds) > 1:
            gap = paired([r["bits_per_byte"] for r in found], [r["bits_per_byte"] for r in rows[0]])
            arm |= {"difference": gap.to_dict(), "verdict": gap.verdict(lower_is_better=True)}
        arms.append(arm)
    mine = {
        **({"tokens": options.tokens} if options.tokens else {"seconds": seconds}),
        "seeds": seeds,
        "arms": arms,
        "commit": common.commit(),
        "date": common.now(),
    }
    common.write_result(name, {"sets": {**before.get("sets", {}), options.name: mine}})


if __name__ == "__main__":
    main()
