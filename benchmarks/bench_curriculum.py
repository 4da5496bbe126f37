"""Each curriculum and each way of sampling against shuffled, proportional training at equal time.

Text of three sources (half novels, three tenths manuals, a fifth speeches), judged on held-out text of the
same mixture. Shape, rate, batch and seed are the same; what measures difficulty pays for it out of its time.
Three groups, each with a control of its own:

- `text` (windows of 256, the text is not seen once): half_length, the default, against orders by difficulty,
  the best text last, sampling by source and weights by loss;
- `length` (windows of 512): full_length against lengths that grow, also in 0.8 of the time, and pieces of
  documents;
- `epochs` (windows of 256, little text seen several times): full_length against leaving out what is known.

All arms of a seed run in turn, in an order that moves on from seed to seed.

    python benchmarks/bench_curriculum.py --full [--data FOLDER] [--methods easy_first,bandit] [--seconds 18]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common
import texts

BYTES = 2_500_000
SHARES = {"novels": 0.5, "manuals": 0.3, "speeches": 0.2}
HELDOUT_BYTES = 120_000
SMALL = 0.06
"""Of the text, where it is to be seen several times."""
SECONDS = {"quick": 8.0, "full": 18.0}
VOCABULARY = 2048
MODEL = {"family": "qwen3", "layers": 2, "width": 128}
BATCH = 1024

Arm = dict[str, Any]
GROUPS: dict[str, dict[str, Any]] = {
    "text": {
        "tokens": "all-tokens",
        "context": 256,
        "control": "half_length",
        "arms": {
            "half_length": {"curriculum": "half_length"},
            "easy_first": {"curriculum": "easy_first"},
            "hard_first": {"curriculum": "hard_first"},
            "warmup_only": {"curriculum": "warmup_only"},
            "quality_anneal": {"curriculum": "quality_anneal"},
            "bandit": {"sampling": "bandit"},
            "weighted": {"sampling": "weighted"},
            "loss": {"sampling": "loss"},
        },
    },
    "length": {
        "tokens": "all-tokens",
        "context": 512,
        "control": "full_length_512",
        "arms": {
            "full_length_512": {"curriculum": "full_length"},
            "half_length_512": {"curriculum": "half_length"},
            "length_warmup": {"curriculum": "length_warmup"},
            "length_warmup_80": {"curriculum": "length_warmup", "time": 0.8},
            "length_buckets": {"curriculum": "length_buckets"},
        },
    },
    "epochs": {
        "tokens": "few-tokens",
        "context": 256,
        "control": "full_length",
        "arms": {"full_length": {"curriculum": "full_length"}, "infobatch": {"sampling": "infobatch"}},
    },
}


def main() -> None:
    """Runs every arm with every seed and writes curriculum.json."""
    options = common.arguments(
        __doc__ or "",
        ("--data", {"help": "folder with corpus/ and web/"}),
        ("--methods", {"default": "", "help": "only these and their controls, by commas"}),
        ("--seeds", {"type": int, "help": "how many; 5 for --full, else 1"}),
        ("--seconds", {"type": float, "help": "of each training"}),
    )
    data = common.data_folder(options.data)
    if data is None:
        return
    seeds = list(range(options.seeds or (5 if options.full else 1)))
    seconds = options.seconds or SECONDS["full" if options.full else "quick"]
    groups = chosen(list(filter(None, options.methods.split(","))))
    found: dict[str, list[dict[str, Any]]] = {name: [] for group in groups.values() for name in group["arms"]}
    with common.empty_store() as folder:
        prepare(folder, data)
        for seed in seeds:
            for name, row in run_seed(folder, groups, seed, seconds).items():
                found[name].append(row)
                print(f"seed {seed}, {name}: {row}", file=sys.stderr)
    table = {group: judge(found, parts) for group, parts in groups.items()}
    show(table)
    result = {
        "seconds": seconds,
        "seeds": seeds,
        "model": MODEL,
        "batch": BATCH,
        "vocabulary": VOCABULARY,
        "bytes": {name: round(share * BYTES) for name, share in SHARES.items()},
        "arms": found,
        "table": table,
    }
    whole = options.full and not options.methods
    common.write_result("curriculum" if whole else "curriculum-quick", result)


def chosen(methods: list[str]) -> dict[str, dict[str, Any]]:
    """Gives the groups with the methods asked for; all without any.

    Raises:
        SystemExit: a method is none of ours.
    """
    known = {name for group in GROUPS.values() for name in group["arms"]}
    if set(methods) - known:
        raise SystemExit(f"unknown: {', '.join(set(methods) - known)}; known: {', '.join(sorted(known))}")
    groups = {}
    for name, group in GROUPS.items():
        arms = {k: arm for k, arm in group["arms"].items() if not methods or k in methods}
        if arms:
            control = {group["control"]: group["arms"][group["control"]]}
            groups[name] = {**group, "arms": control | arms}
    return groups


def prepare(folder: Path, data: Path) -> None:
    """Writes the three sources and their held-out text."""
    sources = {
        "novels": (texts.novels(data), texts.heldout_novels),
        "manuals": (texts.manuals(data), texts.heldout_manuals),
        "speeches": (texts.speeches(data), texts.heldout_speeches),
    }
    for name, (rows, heldout) in sources.items():
        texts.write(texts.take(rows, SHARES[name] * BYTES), folder / f"{name}.jsonl")
        texts.write(heldout(data, round(SHARES[name] * HELDOUT_BYTES)), folder / f"{name}-heldout.jsonl")


def run_seed(
    folder: Path, groups: dict[str, dict[str, Any]], seed: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Trains and scores every arm with one seed, one after the other."""
    sources: list[dict[str, Any]] = [
        {
            "data.read": {
                "kind": "corpus",
                "as": name,
                "path": f"{name}.jsonl",
                "heldout": f"{name}-heldout.jsonl",
            }
        }
        for name in SHARES
    ]
    stages = [
        *sources,
        {"data.mix": {"as": "all", "use": {"corpora": list(SHARES)}}},
        {"data.mix": {"as": "few", "keep": SMALL, "use": {"corpora": list(SHARES)}}},
        {"tokenizer.train": {"vocab_size": VOCABULARY, "use": {"corpus": "all"}}},
        {"tokenizer.encode": {"as": "all-tokens", "use": {"corpus": "all"}}},
        {"tokenizer.encode": {"as": "few-tokens", "use": {"corpus": "few"}}},
    ]
    order = [(name, group) for group in groups.values() for name in group["arms"]]
    at = seed * 4 % len(order)
    for name, group in order[at:] + order[:at]:
        arm = dict(group["arms"][name])
        time = f"{arm.pop('time', 1.0) * seconds:g}s"
        settings = {"model": MODEL, "context": group["context"], "batch": BATCH, "time": time, **arm}
        stages += [
            {"train.pretrain": {"as": name, "use": {"tokens": group["tokens"]}, **settings}},
            {
                "evaluate": {
                    "as": f"{name}-score",
                    "limit": "all",
                    "minimal_pairs": False,
                    "sample_tokens": 0,
                    "use": {"model": name, "corpus": "all"},
                }
            },
        ]
    path = common.recipe(folder, f"seed-{seed}", {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    receipts = {r.label: r for r in read_receipts(folder / "runs" / f"seed-{seed}") if r.parent is None}
    found = {}
    for name, _ in order:
        training, cost = receipts[name].facts["training"], receipts[name].cost
        assert cost is not None
        found[name] = {
            "seed": seed,
            "bits_per_byte": receipts[f"{name}-score"].facts["bits_per_byte"]["value"],
            "seconds": cost.seconds,
            "steps": training["steps"],
            "tokens": training["tokens"],
            "epochs": training["epochs"],
        }
    return found


def judge(found: dict[str, list[dict[str, Any]]], group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sets each arm of a group beside its control, seed by seed."""
    from kogata.core.statistics import paired

    control = [row["bits_per_byte"] for row in found[group["control"]]]
    table = {}
    for name in group["arms"]:
        values = [row["bits_per_byte"] for row in found[name]]
        gap = paired(values, control)
        verdict = "the control" if name == group["control"] else gap.verdict(lower_is_better=True)
        mean = sum(values) / len(values)
        table[name] = {"bits_per_byte": mean, "difference": gap.to_dict(), "verdict": verdict}
    return table


def show(table: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Prints the table."""
    for group, rows in table.items():
        print(f"\n{group:<20} bits per byte  difference (95 %)", file=sys.stderr)
        for name, row in rows.items():
            gap = row["difference"]
            interval = "" if gap["low"] is None else f" [{gap['low']:+.4f}, {gap['high']:+.4f}]"
            told = f"{gap['mean']:+.4f}{interval}  {row['verdict']}"
            print(f"{name:<20} {row['bits_per_byte']:.4f}         {told}", file=sys.stderr)


if __name__ == "__main__":
    main()
