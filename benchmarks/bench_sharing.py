"""Fewer weights at equal training time: shared layers, loops, narrow embeddings against a model without them.

Every arm trains for the same seconds on the examples' novels with the same vocabulary, and is scored on the
same held-out novels; seeds are paired, arms run in turn. `unshared` is 6 layers x 192 with embedding and head
of its own. The others have at most 0.6 of its weights: each block used twice in a row (`times`), the stack
run through twice with a change of rank 8 in the second loop (`loops`), both with embeddings of rows of 128;
and `smaller`, a plain model of as few weights, which is what sharing has to beat.

    python benchmarks/bench_sharing.py --full [--seconds 70] [--seeds 3]
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import common

NOVELS = str(common.ROOT / "examples" / "data" / "novels" / "*.txt.gz")
HELD = str(common.ROOT / "examples" / "data" / "novels-heldout" / "*.txt.gz")
SHAPE = {"family": "kogata", "layers": 6, "width": 192, "heads": 3}
ARMS: dict[str, dict[str, Any]] = {
    "unshared": SHAPE,
    "times": {**SHAPE, "sharing": {"times": 2}, "embed_width": 128},
    "loops": {**SHAPE, "sharing": {"loops": 2, "rank": 8}, "embed_width": 128},
    "smaller": {**SHAPE, "layers": 4, "width": 160, "heads": 5},
}
MOST_PARAMETERS, MOST_LOSS = 0.6, 0.03


def train(folder: Path, name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Trains one arm once and scores it."""
    stages: list[dict[str, Any]] = [
        {"data.read": {"path": NOVELS, "heldout": HELD}},
        {"tokenizer.train": {"vocab_size": 4096}},
        {"tokenizer.encode": {}},
        {"train.pretrain": {"time": f"{seconds}s", "model": ARMS[name]}},
        {"evaluate": {"minimal_pairs": False, "sample_tokens": 0}},
    ]
    path = common.recipe(folder, f"{name}-{seed}", {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    run = folder / "runs" / f"{name}-{seed}"
    by_stage = {item.stage: item for item in read_receipts(run)}
    trained = by_stage["train.pretrain"]
    assert trained.cost is not None
    training = trained.facts["training"]
    return {
        "seed": seed, "bits_per_byte": by_stage["evaluate"].facts["bits_per_byte"]["value"],
        "parameters": trained.facts["parameters"], "file_bytes": trained.cost.size_bytes,
        "steps": training["steps"], "tokens": training["tokens"], "wall_seconds": trained.cost.seconds,
    }  # fmt: skip


def main() -> None:
    """Trains all arms and writes sharing.json."""
    options = common.arguments(
        __doc__ or "",
        ("--seconds", {"type": float, "help": "of training"}),
        ("--seeds", {"type": int, "help": "paired over the arms"}),
    )
    seconds = options.seconds or (70.0 if options.full else 30.0)
    seeds = options.seeds or (3 if options.full else 1)
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    with common.empty_store() as folder:
        for seed in range(seeds):
            names = list(ARMS) if seed % 2 == 0 else list(ARMS)[::-1]
            for name in names:
                arms[name].append(train(folder, name, seconds, seed))
                print(f"{name}: {arms[name][-1]}", file=sys.stderr, flush=True)
    whole = arms["unshared"]
    against = {}
    for name, rows in arms.items():
        lost = [row["bits_per_byte"] - one["bits_per_byte"] for row, one in zip(rows, whole, strict=True)]
        shares = {of: rows[0][of] / whole[0][of] for of in ("parameters", "file_bytes")}
        good = max(shares.values()) <= MOST_PARAMETERS and statistics.median(lost) <= MOST_LOSS
        against[name] = {"shares": shares, "lost_bits_per_byte": lost, "reached": good}
    del against["unshared"]
    result = {"seconds": seconds, "seeds": seeds, "models": ARMS, "arms": arms, "against": against}
    common.write_result("sharing" if options.full else "sharing-quick", result)


if __name__ == "__main__":
    main()
