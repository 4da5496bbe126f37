"""A head moved in every step against one moved in every fourth, at equal time, on English novels.

Shape (3 layers x 128) and vocabulary (8,192) are what Kogata chooses for five minutes and the same in both
arms, so that `tables_every` alone differs; the rest is as it comes. Arms run in turn with the same seeds, the
order alternates, and each model is scored on the same held-out novels. The clock is train.pretrain's own:
start from the corpus, compiling and saving are in it.

    python benchmarks/bench_tables.py --full [--corpus FOLDER] [--seconds 96] [--seeds 3] [--long 288]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common

SHAPE = {"layers": 3, "width": 128}
VOCABULARY = 8192
ARMS = {"every": 1, "fourth": 4}


def train(
    folder: Path, corpus: dict[str, str], vocabulary: int, name: str, seconds: float, seed: int
) -> dict[str, Any]:
    """Trains one arm once and scores it."""
    stages: list[dict[str, Any]] = [
        {"data.read": corpus},
        {"tokenizer.train": {"vocab_size": vocabulary}},
        {"tokenizer.encode": {}},
        {"train.pretrain": {"time": f"{seconds:g}s", "model": SHAPE, "tables_every": ARMS[name]}},
        {"evaluate": {"limit": "all", "minimal_pairs": False, "sample_tokens": 0}},
    ]
    label = f"{name}-{seconds:.0f}-{seed}"
    path = common.recipe(folder, label, {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    by_stage = {item.stage: item for item in read_receipts(folder / "runs" / label)}
    trained = by_stage["train.pretrain"]
    assert trained.cost is not None
    training = trained.facts["training"]
    row = {
        "seed": seed, "bits_per_byte": by_stage["evaluate"].facts["bits_per_byte"]["value"],
        "steps": training["steps"], "tokens": training["tokens"], "tables_every": training["tables_every"],
        "wall_seconds": trained.cost.seconds, "flops": trained.cost.flops,
        "parameters": trained.facts["parameters"],
    }  # fmt: skip
    print(f"{label}: {row}", file=sys.stderr, flush=True)
    return row


def compare(
    folder: Path, corpus: dict[str, str], vocabulary: int, seconds: float, seeds: list[int]
) -> dict[str, Any]:
    """Runs both arms in turn and sets one beside the other, seed by seed."""
    from kogata.core.statistics import paired

    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for number, seed in enumerate(seeds):
        for name in list(ARMS) if number % 2 == 0 else list(ARMS)[::-1]:
            arms[name].append(train(folder, corpus, vocabulary, name, seconds, seed))
    scores = {name: [row["bits_per_byte"] for row in rows] for name, rows in arms.items()}
    gap = paired(scores["fourth"], scores["every"])
    return {
        "seconds": seconds,
        "seeds": seeds,
        "arms": arms,
        "gain_bits_per_byte": [a - b for a, b in zip(scores["every"], scores["fourth"], strict=True)],
        "more_steps": [
            b["steps"] / a["steps"] - 1 for a, b in zip(arms["every"], arms["fourth"], strict=True)
        ],
        "difference": gap.to_dict(),
        "verdict": gap.verdict(lower_is_better=True),
    }


def main() -> None:
    """Measures both lengths and writes tables.json."""
    options = common.arguments(
        __doc__ or "",
        ("--corpus", {"help": "folder with prose/ and heldout/"}),
        ("--seconds", {"type": float, "help": "of training, short runs"}),
        ("--seeds", {"type": int, "help": "paired, of the short runs"}),
        ("--long", {"type": float, "help": "of training, long run; 0 leaves it out"}),
        ("--vocabulary", {"type": int, "help": "entries", "default": VOCABULARY}),
    )
    found = common.corpus_folder(options.corpus)
    novels = common.ROOT / "examples" / "data"
    corpus = {
        "path": str(novels / "novels" / "*.txt.gz"),
        "heldout": str(novels / "novels-heldout" / "*.txt.gz"),
    }
    if found is not None:
        corpus = {
            "path": str(found / "prose" / "*.txt.gz"),
            "heldout": str(found / "heldout" / "val-fiction-*.txt.gz"),
        }
    seconds = options.seconds or (96.0 if options.full else 40.0)
    seeds = list(range(options.seeds or (3 if options.full else 1)))
    long = (288.0 if options.full else 0.0) if options.long is None else options.long
    result: dict[str, Any] = {
        "corpus": "English novels (50 train, 3 held out)" if found else "examples/data/novels",
        "shape": SHAPE,
        "vocabulary": options.vocabulary,
    }
    with common.empty_store() as folder:
        result["short"] = compare(folder, corpus, options.vocabulary, seconds, seeds)
        if long:
            result["long"] = compare(folder, corpus, options.vocabulary, long, [0])
    common.write_result("tables" if options.full else "tables-quick", result)


if __name__ == "__main__":
    main()
