"""Minimal pairs of English grammar (BLiMP) after an hour of training from scratch on all English text.
The text: novels, dialogues, speeches, documentation and encyclopedia of the corpus folder; held out are its
own held-out files. The pairs: every pair of every paradigm in the folder that `--blimp` names (the files of
BLiMP, one paradigm each), chance is 0.5. Kogata runs as it comes within the time, everything counted.

    python benchmarks/bench_blimp.py --full --blimp FOLDER [--corpus FOLDER] [--seconds 3600]
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import common

TEXT = ("prose/*.txt.gz", "masc/*.jsonl.gz", "speech/*.jsonl.gz", "techdocs/*.jsonl.gz", "wiki/*.jsonl.gz")


def pairs_file(source: Path, out: Path) -> int:
    """Puts the pairs of all paradigms into one file; gives their number."""
    lines = []
    for path in sorted(source.glob("*.jsonl*")):
        content = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open("rt")
        with content as file:
            lines += [line.strip() for line in file if line.strip()]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def main() -> None:
    """Trains once, scores, and writes blimp.json."""
    options = common.arguments(
        __doc__ or "",
        ("--corpus", {"help": "folder with prose/, masc/, speech/, techdocs/, wiki/ and heldout/"}),
        (
            "--blimp",
            {"help": "folder with BLiMP's files; or KOGATA_BENCH_BLIMP; by default the bundled pairs"},
        ),
        ("--seconds", {"type": float, "help": "of the whole run"}),
        ("--set", {"default": "{}", "help": "settings of train.pretrain, as JSON"}),
    )
    corpus = common.corpus_folder(options.corpus)
    if corpus is None:
        print("left out: needs the corpus folder (--corpus, or KOGATA_BENCH_CORPUS)", file=sys.stderr)
        return
    seconds = options.seconds or (3600.0 if options.full else 180.0)
    blimp = options.blimp or os.environ.get("KOGATA_BENCH_BLIMP")
    with common.empty_store() as folder:
        pairs: str | bool = True
        if blimp:
            count = pairs_file(Path(blimp), folder / "pairs.jsonl")
            print(f"{count:,} pairs", file=sys.stderr)
            pairs = str(folder / "pairs.jsonl")
        stages: list[dict[str, Any]] = [
            {"data.read": {"path": [str(corpus / part) for part in TEXT],
                           "heldout": str(corpus / "heldout" / "*.gz")}},
            {"data.dedup": {}},
            {"tokenizer.train": {}},
            {"tokenizer.encode": {}},
            {"train.pretrain": json.loads(options.set)},
            {"evaluate": {"minimal_pairs": pairs, "sample_tokens": 0}},
        ]  # fmt: skip
        parts = {"seed": 0, "budget": {"time": f"{seconds}s"}, "stages": stages}
        path = common.recipe(folder, "blimp", parts)
        result = common.kogata("run", str(path), cwd=folder, timeout=seconds + 3600)
        from kogata.runtime.ledger import read_receipts

        by_stage = {item.stage: item for item in read_receipts(folder / "runs" / "blimp")}
        scores = json.loads((Path(by_stage["evaluate"].path or "") / "scores.json").read_text("utf-8"))
    trained = by_stage["train.pretrain"].facts
    common.write_result(
        "blimp" if options.full else "blimp-quick",
        {
            "seconds": seconds,
            "wall_seconds": result["wall_seconds"],
            "pairs": "all of the folder's paradigms" if blimp else "the bundled ones",
            "settings": json.loads(options.set),
            "accuracy": scores["minimal_pairs"],
            "bits_per_byte": by_stage["evaluate"].facts["bits_per_byte"]["value"],
            "parameters": trained["parameters"],
            "training": trained["training"],
        },
    )


if __name__ == "__main__":
    main()
