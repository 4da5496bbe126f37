"""A core set against everything: under a third of a mixed pool, chosen, against the whole and against chance.

The pool is fixed by bytes (texts.py): 40 % novels, 25 % manuals, 15 % web, 20 % planted junk (spam, raw
HTML, shuffled words, copies); and the same without the junk. What is wanted is clean prose: the target is
of novels that are in no pool, the held-out text of others again. All arms share the tokenizer (learned on
the pool), the shape, every setting and the seed; the whole pool is read once, each choice is trained on as
many tokens as 30 % of the pool has; `target_longer` reads its choice 1.2 times, in the time left up to 40
%. Seconds are those of choosing, encoding and training; arms run in turn.

    python benchmarks/bench_coreset.py --full [--data FOLDER] [--part junk|clean] [--methods dsir,perplexity]
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import common
import texts

POOL_BYTES = {"quick": 500_000, "full": 5_000_000}
TARGET_BYTES = 250_000
HELDOUT_BYTES = 240_000
SHARE, LONGER = 0.3, 0.36
"""Of the whole pool's tokens: what each choice is trained on, and the one with the target once more."""
KEEP = 0.295
"""Of the bytes: prose has more bytes a token than junk, and the last document may reach over."""
MODEL = {"family": "qwen3", "layers": 2, "width": 64}
CONTEXT, BATCH = 128, 512
VOCABULARY = 2048
TIMED = ("data.select", "tokenizer.encode", "train.pretrain")


def main() -> None:
    """Runs the arms on both pools and writes coreset.json."""
    options = common.arguments(
        __doc__ or "",
        ("--data", {"help": "folder with corpus/ and web/"}),
        ("--part", {"choices": ["junk", "clean", "both"], "default": "both", "help": "which pool"}),
        ("--methods", {"default": "", "help": "further selectors, by commas; NAME:alone without the target"}),
        ("--seeds", {"type": int, "help": "how many; 5 for --full, else 1"}),
        ("--pool-bytes", {"type": int, "help": "size of the pool with its junk"}),
    )
    data = common.data_folder(options.data)
    if data is None:
        return
    length = "full" if options.full else "quick"
    seeds = list(range(options.seeds or (5 if options.full else 1)))
    size = options.pool_bytes or POOL_BYTES[length]
    arms: dict[str, dict[str, Any] | None] = {
        "full": None,
        "random": {"method": "random"},
        "target": {"target": "target.jsonl"},
        "target_longer": {"target": "target.jsonl"},
        "no_target": {},
    }
    for name in filter(None, options.methods.split(",")):
        method, _, alone = name.partition(":")
        arms[name] = {"method": method} if alone else {"method": method, "target": "target.jsonl"}
    parts = ["junk", "clean"] if options.part == "both" else [options.part]
    result: dict[str, Any] = {
        "seeds": seeds,
        "keep": KEEP,
        "token_share": SHARE,
        "model": MODEL,
        "context": CONTEXT,
        "vocabulary": VOCABULARY,
        "pools": {},
    }
    for part in parts:
        with common.empty_store() as folder:
            result["pools"][part] = compare(folder, data, size, part == "junk", seeds, arms)
    suffix = "" if options.full else "-quick"
    common.write_result(f"coreset{suffix if options.part == 'both' else f'-{options.part}{suffix}'}", result)


def compare(
    folder: Path, data: Path, size: int, junk: bool, seeds: list[int], arms: dict[str, Any]
) -> dict[str, Any]:
    """Runs every arm with every seed, in turn, and gives raw values and paired differences."""
    rows, parts = texts.core_set_pool(data, size, junk)
    texts.write(rows, folder / "pool.jsonl")
    texts.write(texts.take(texts.novels(data, target=True), TARGET_BYTES), folder / "target.jsonl")
    texts.write(texts.heldout_novels(data, HELDOUT_BYTES), folder / "heldout.jsonl")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    tokens: int | None = None
    for seed in seeds:
        names = list(arms)
        names = names[seed % len(names) :] + names[: seed % len(names)]
        for name in names:
            share = LONGER if name == "target_longer" else SHARE
            budget = None if name == "full" or tokens is None else int(share * tokens) // BATCH * BATCH
            row = run_arm(folder, name, arms[name], seed, budget)
            if name == "full":
                tokens = row["tokens"]
            found[name].append(row)
            print(f"{'junk' if junk else 'clean'}, seed {seed}, {name}: {row}", file=sys.stderr)
    return {"bytes": parts, "arms": found, "verdict": judge(found)}


def run_arm(
    folder: Path, name: str, select: dict[str, Any] | None, seed: int, tokens: int | None
) -> dict[str, Any]:
    """Chooses, encodes, trains and scores once."""
    chosen = "pool" if select is None else "chosen"
    stages: list[dict[str, Any]] = [
        {"data.read": {"kind": "corpus", "as": "pool", "path": "pool.jsonl", "heldout": "heldout.jsonl"}},
        {"tokenizer.train": {"vocab_size": VOCABULARY, "use": {"corpus": "pool"}}},
    ]
    if select is not None:
        stages.append({"data.select": {"as": "chosen", "keep": KEEP, "use": {"corpus": "pool"}, **select}})
    length = {"epochs": 1} if tokens is None else {"tokens": tokens}
    train = {"model": MODEL, "context": CONTEXT, "batch": BATCH, "curriculum": "full_length", **length}
    scored = {"limit": "all", "minimal_pairs": False, "sample_tokens": 0, "use": {"corpus": "pool"}}
    stages += [
        {"tokenizer.encode": {"use": {"corpus": chosen}}},
        {"train.pretrain": train},
        {"evaluate": scored},
    ]
    label = f"{name.replace(':', '-')}-{seed}"
    path = common.recipe(folder, label, {"seed": seed, "stages": stages})
    wall = common.kogata("run", str(path), cwd=folder)["wall_seconds"]
    from kogata.runtime.ledger import read_receipts

    receipts = read_receipts(folder / "runs" / label)
    facts = {receipt.stage: receipt.facts for receipt in receipts if receipt.parent is None}
    train_split = facts["tokenizer.encode"]["splits"]["train"]
    account = next(iter((facts.get("data.select") or {}).get("accounts", {}).values()), {})
    return {
        "seed": seed,
        "bits_per_byte": facts["evaluate"]["bits_per_byte"]["value"],
        "seconds": common.stage_seconds(receipts, *TIMED),
        "select_seconds": common.stage_seconds(receipts, "data.select"),
        "wall_seconds": wall,
        "tokens": train_split["tokens"],
        "documents": train_split["documents"],
        "tokens_trained": facts["train.pretrain"]["training"]["tokens"],
        "method": (account.get("extra") or {}).get("method"),
    }


def judge(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Sets every arm beside the whole pool and beside chance, seed by seed."""
    from kogata.core.statistics import paired

    def values(name: str, key: str = "bits_per_byte") -> list[float]:
        rows = sorted(found[name], key=lambda row: row["seed"])
        return [float(row[key]) for row in rows]

    verdict = {}
    whole = values("full", "tokens")[0]
    for name in found:
        if name == "full":
            continue
        against_full, against_random = (
            paired(values(name), values("full")),
            paired(values(name), values("random")),
        )
        times = [a / b for a, b in zip(values(name, "seconds"), values("full", "seconds"), strict=True)]
        chosen, trained = max(values(name, "tokens")) / whole, max(values(name, "tokens_trained")) / whole
        verdict[name] = {
            "against_full": against_full.to_dict(),
            "against_random": against_random.to_dict(),
            "time_share": statistics.median(times),
            "token_share": chosen,
            "trained_share": trained,
            "reaches_full": against_full.mean <= 0,
            "bar": bool(
                against_full.mean <= 0
                and against_random.mean <= -0.05
                and statistics.median(times) <= 0.4
                and chosen <= SHARE
            ),
        }
    return verdict


if __name__ == "__main__":
    main()
