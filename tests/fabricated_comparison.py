"""Writes the folder of a comparison that never was: four variants of the fabricated run over three seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fabricated_run import HOSTILE, MACHINE, metrics, write_run

from kogata.runtime.compare import BASELINE, NAME, Comparison

VARIANTS: dict[str, dict[str, list[float]]] = {
    BASELINE: {"bits_per_byte": [1.731, 1.735, 1.733], "total_seconds": [226.0, 229.0, 231.0]},
    "without data.filter": {
        "bits_per_byte": [1.7312, 1.7348, 1.7335],
        "total_seconds": [180.0, 182.0, 181.0],
    },
    "train.pretrain.lr=0.01": {
        "bits_per_byte": [1.701, 1.706, 1.702],
        "total_seconds": [227.0, 228.0, 232.0],
    },
    "train.pretrain.model.parameters=1000000": {
        "bits_per_byte": [1.861, 1.866, 1.859],
        "total_seconds": [92.0, 90.0, 91.0],
    },
}
SIZES = (17_104_882.0, 17_104_882.0, 17_104_882.0, 5_000_000.0)


def write_comparison(folder: Path, *, seeds: int = 3, share: bool = False, hostile: bool = False) -> Path:
    """Writes comparison.json and the folders of the runs it names.

    Args:
        share: judge by rows right instead of bits per byte.
        hostile: give the last variant a name that tries to leave the page's text.
    """
    values: dict[str, dict[str, list[float]]] = {}
    folders: dict[str, list[str]] = {}
    for number, (name, given) in enumerate(VARIANTS.items()):
        shown = HOSTILE if hostile and number == len(VARIANTS) - 1 else name
        quality = given["bits_per_byte"][:seeds]
        seconds = given["total_seconds"][:seeds]
        values[shown] = {
            **({"accuracy": [2.5 - value for value in quality]} if share else {"bits_per_byte": quality}),
            "minimal_pairs": [0.58 + 0.001 * number] * seeds,
            "training_seconds": [value - 30 for value in seconds],
            "total_seconds": seconds,
            "joules_low": [14 * value for value in seconds],
            "joules_high": [38 * value for value in seconds],
            "peak_bytes": [1.2e9 - 1e8 * number] * seeds,
            "file_bytes": [SIZES[number]] * seeds,
        }
        folders[shown] = [f"variant-{number}/seed-{seed}" for seed in range(seeds)]
        for seed, place in enumerate(folders[shown]):
            rows = metrics(steps=240, seconds=seconds[seed] - 30)
            offset = quality[seed] - 1.733
            rows = [row | {"loss": row["loss"] + 2 * offset} for row in rows]
            _own(write_run(folder / place, rows=rows), number, seed)
    found = Comparison(
        name="novels", match="steps", seeds=list(range(seeds)), values=values, folders=folders, path=folder,
        machine=MACHINE.to_dict(), energy_source="modelled:package-share",
    )  # fmt: skip
    (folder / NAME).write_text(json.dumps(found.to_dict(), ensure_ascii=False), encoding="utf-8")
    return folder


def _own(folder: Path, number: int, seed: int) -> None:
    """Gives a run its variant's settings, keys of what depends on them, and no filter to the second."""
    lines = [
        json.loads(line)
        for line in (folder / "receipts.jsonl").read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]
    kept: list[dict[str, Any]] = []
    for line in lines:
        if number == 1 and line["label"] == "data.filter":
            continue
        if line["label"] in ("train.pretrain", "evaluate", "export"):
            line["key"] = f"{number}{seed}{line['key']}"
        elif number == 1 and line["label"] != "data.read":
            line["key"] = f"{number}{line['key']}"
        if line["label"] == "train.pretrain":
            line["settings"] |= {"lr": 0.01} if number == 2 else {}
            line["settings"] |= {"model": {"family": "qwen3", "parameters": 1_000_000}} if number == 3 else {}
            line["facts"]["training"] = {"steps": 240, "tokens": 983_040, "epochs": 0.312}
        kept.append(line)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
    (folder / "receipts.jsonl").write_text(text, encoding="utf-8")
