"""Budgets kept, forecasts met: time budgets seen from outside, and each stage's forecast against its cost.

Parts run at different times are kept side by side in the result: each has its date and commit.

    python benchmarks/bench_budgets.py --full [--part timed|stepped]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import common

NOVELS = str(common.ROOT / "examples" / "data" / "novels" / "*.txt.gz")
HELD = str(common.ROOT / "examples" / "data" / "novels-heldout" / "*.txt.gz")
AOZORA = str(common.ROOT / "examples" / "data" / "aozora")


def stages(
    train: dict[str, Any], path: str = NOVELS, heldout: Any = HELD, **tokenizer: Any
) -> list[dict[str, Any]]:
    """Gives the main job with these settings of training."""
    return [
        {"data.read": {"path": path, "heldout": heldout}},
        {"data.filter": {}},
        {"data.dedup": {}},
        {"tokenizer.train": tokenizer},
        {"tokenizer.encode": {}},
        {"train.pretrain": train},
        {"evaluate": {}},
        {"export": {"formats": ["hf", "gguf-q8_0"]}},
    ]


def shape(family: str, layers: int, width: int, heads: int, **more: Any) -> dict[str, Any]:
    """Gives an explicit model."""
    return {"model": {"family": family, "layers": layers, "width": width, "heads": heads}, **more}


STEPPED: dict[str, list[dict[str, Any]]] = {
    "default shape, 150 steps": stages({"steps": 150}),
    "qwen3 2 x 128, 200 steps": stages(shape("qwen3", 2, 128, 2, steps=200), vocab_size=2048),
    "llama 4 x 256, 60 steps": stages(shape("llama", 4, 256, 4, steps=60), vocab_size=4096),
    "arcee 3 x 192, adamw, 100 steps": stages(shape("arcee", 3, 192, 3, steps=100, optimizer="adamw")),
    "japanese, 100 steps": stages({"steps": 100}, path=AOZORA, heldout=0.05),
    "qwen3 6 x 384, batch 8192, 15 steps": stages(
        shape("qwen3", 6, 384, 6, steps=15, batch=8192), vocab_size=8192
    ),
}


def main() -> None:
    """Runs time budgets and step budgets and writes budgets.json."""
    options = common.arguments(
        __doc__ or "", ("--part", {"choices": ["timed", "stepped"], "help": "only this one"})
    )
    name = "budgets" if options.full else "budgets-quick"
    result: dict[str, Any] = {part: found for part, found in earlier(name).items() if part != options.part}
    for part, measure in (("timed", timed), ("stepped", stepped)):
        if options.part in (None, part):
            measured = {f"{part}_date": common.now(), f"{part}_commit": common.commit()}
            result |= measured | measure(options.full)
    common.write_result(name, result)


def earlier(name: str) -> dict[str, Any]:
    """Gives the parts that an earlier call wrote; those written whole have the file's date and commit."""
    path = common.RESULTS / f"{name}.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts = {
        key: value for key, value in held.items() if key not in ("benchmark", "commit", "date", "machine")
    }
    for part in ("timed", "stepped"):
        if part in parts:
            parts.setdefault(f"{part}_date", held["date"])
            parts.setdefault(f"{part}_commit", held["commit"])
    return parts


def timed(full: bool) -> dict[str, Any]:
    """Runs the main job under time budgets."""
    minutes = [2, 4] if full else [2]
    timed = []
    for number, minute in enumerate(minutes):
        for seed in (0, 1) if full else (0,):
            with common.empty_store() as folder:
                name = f"timed-{number}-{seed}"
                parts = {"budget": {"time": f"{minute}min"}, "seed": seed, "stages": stages({})}
                path = common.recipe(folder, name, parts)
                row = common.kogata("run", str(path), cwd=folder)
            share = row["wall_seconds"] / (60 * minute)
            timed.append({"budget_seconds": 60 * minute, "wall_seconds": row["wall_seconds"], "share": share})
            print(f"{minute} min: {row['wall_seconds']:.1f} s, {share:.1%}", file=sys.stderr)
    return {"timed": timed, "budgets_kept": all(0.90 <= item["share"] <= 1.03 for item in timed)}


def stepped(full: bool) -> dict[str, Any]:
    """Runs recipes of a fixed number of steps."""
    stepped: list[dict[str, Any]] = []
    for name, parts in (STEPPED if full else dict(list(STEPPED.items())[:2])).items():
        with common.empty_store() as folder:
            stepped.append({"name": name, "stages": forecasts(folder, parts)})
        for item in stepped[-1]["stages"]:
            print(f"{name}: {item}", file=sys.stderr)
    rows = [item for run in stepped for item in run["stages"]]
    return {
        "stepped": stepped,
        "time_within": sum(item["time_ok"] for item in rows) / len(rows),
        "memory_within": sum(item["memory_ok"] for item in rows) / len(rows),
    }


def forecasts(folder: Path, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs a recipe with a step budget and sets each stage's forecast beside its cost."""
    from kogata.runtime.ledger import read_receipts

    path = common.recipe(folder, "stepped", {"stages": parts})
    common.kogata("run", str(path), cwd=folder)
    planned = json.loads((folder / "runs" / "stepped" / "plan.json").read_text())
    forecast = {row["label"]: row["forecast"] for row in planned["steps"]}
    found = []
    for receipt in read_receipts(folder / "runs" / "stepped"):
        said, cost = forecast[receipt.label], receipt.cost
        assert cost is not None and cost.seconds is not None
        gap = abs(said["seconds"] - cost.seconds)
        row = {
            "label": receipt.label,
            "forecast_seconds": said["seconds"],
            "seconds": cost.seconds,
            "time_ok": gap <= max(1.0, 0.2 * cost.seconds),
            "forecast_peak_bytes": said["peak_bytes"],
            "peak_bytes": cost.peak_bytes,
            "memory_ok": True,
        }
        if said["peak_bytes"] and cost.peak_bytes:
            row["memory_ok"] = abs(said["peak_bytes"] - cost.peak_bytes) <= 0.15 * cost.peak_bytes
        found.append(row)
    return found


if __name__ == "__main__":
    main()
