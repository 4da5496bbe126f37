"""Customers' questions, 77 intents (banking77), MiniLM: few rows of each label against SetFit, and all rows.

    python benchmarks/bench_classify.py --full --part few --seeds 0,1,2,3,4
    python benchmarks/bench_classify.py --full --part full --seeds 0

Needs banking77's train.csv (text, category), plain or .gz: --data FOLDER, or KOGATA_BENCH_DATA. Two thousand
of its rows are the test, the same for every seed; training rows are drawn from the others. `auto` chooses by
folds (few) or by a tenth of its rows (full) and never sees the test rows. SetFit gets as many seconds for
training as our whole stage took, choosing included; of two learning rates the better on the test rows is its
own. Parts run at different times are kept side by side in the result: each row has its date and commit.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import common

EACH = 8
"""Rows of a label, where there are few."""
TEST_ROWS = 2000
BUDGET = {"few": "150s", "full": "15min"}
QUICK = {"few": "75s", "full": "90s"}
QUICK_ROWS = 1200
PEER_RATES = (2e-5, 1e-4)
"""SetFit's default, and one for a small encoder and little time."""
PEER = ["torch==2.13.0", "transformers==5.23.0", "setfit==1.2.0", "sentence-transformers==6.2.0"]

Row = tuple[str, str]


def main() -> None:
    """Runs the parts and writes classify.json."""
    options = common.arguments(
        __doc__ or "",
        ("--data", {"help": "the folder with banking77's train.csv; or KOGATA_BENCH_DATA"}),
        ("--part", {"choices": ["few", "full", "both"], "default": "both", "help": "which part to run"}),
        ("--seeds", {"help": "such as 0,1,2; default: all five of few, the first of full"}),
        ("--no-peer", {"action": "store_true", "help": "leave SetFit out"}),
    )
    rows = read_rows(options.data or os.environ.get("KOGATA_BENCH_DATA"))
    if rows is None:
        print("left out: needs banking77's train.csv (--data, or KOGATA_BENCH_DATA)", file=sys.stderr)
        return
    name = "classify" if options.full else "classify-quick"
    result = earlier(name)
    parts = ["few", "full"] if options.part == "both" else [options.part]
    budgets = BUDGET if options.full else QUICK
    peer = None if options.no_peer or "few" not in parts else peer_python()
    for part in parts:
        usual = [0, 1, 2, 3, 4] if part == "few" and options.full else [0]
        for seed in [int(word) for word in options.seeds.split(",")] if options.seeds else usual:
            done = run_seed(part, seed, rows, budgets[part], peer, short=not options.full)
            result[part] = [row for row in result[part] if row["seed"] != seed] + [done]
            result[part].sort(key=lambda row: row["seed"])
            write(name, result)


def read_rows(place: str | None) -> list[Row] | None:
    """Reads (text, label) rows; None where the file is not there."""
    folders = [place, common.ROOT.parent / "shared" / "data"]
    for folder in [Path(item) for item in folders if item]:
        for path in (folder, folder / "banking77", folder / "finetune" / "banking77"):
            for file in (path / "train.csv", path / "train.csv.gz"):
                if file.is_file():
                    packed = file.suffix == ".gz"
                    text = (gzip.decompress(file.read_bytes()) if packed else file.read_bytes()).decode()
                    found = csv.DictReader(io.StringIO(text))
                    return [(row["text"].strip(), row["category"]) for row in found]
    return None


def earlier(name: str) -> dict[str, Any]:
    """Gives the seeds that an earlier call wrote."""
    path = common.RESULTS / f"{name}.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {part: held.get(part, []) for part in ("few", "full")}


def write(name: str, result: dict[str, Any]) -> None:
    """Writes the raw rows, and for each part what the seeds show together."""
    summary: dict[str, Any] = {}
    for part, rows in result.items():
        if not rows:
            continue
        probe, auto = ([row[arm]["accuracy"] for row in rows] for arm in ("probe", "auto"))
        summary[part] = {
            "points_over_probe": [100 * (a - p) for a, p in zip(auto, probe, strict=True)],
            "chosen": [row["auto"]["method"] for row in rows],
        }
        against = [row for row in rows if row.get("setfit")]
        if against:
            best = max(PEER_RATES, key=lambda lr: peer_accuracy(against, lr))
            gaps = [100 * (row["auto"]["accuracy"] - at_rate(row, best)["accuracy"]) for row in against]
            summary[part] |= {"peer_lr": best, "points_over_setfit": gaps}
        for key in ("points_over_probe", "points_over_setfit"):
            if key in summary[part]:
                summary[part][f"mean_{key}"] = statistics.fmean(summary[part][key])
    common.write_result(name, {"each": EACH, "test_rows": TEST_ROWS, "summary": summary, **result})


def at_rate(row: dict[str, Any], lr: float) -> dict[str, Any]:
    """Gives the peer's run at a rate, else the one it has."""
    return next((run for run in row["setfit"] if run["lr"] == lr), row["setfit"][0])


def peer_accuracy(rows: list[dict[str, Any]], lr: float) -> float:
    """Gives the mean accuracy of the peer over the seeds that were run at a rate."""
    found = [run["accuracy"] for row in rows for run in row["setfit"] if run["lr"] == lr]
    return statistics.fmean(found) if found else -1.0


def peer_python() -> Path | None:
    """Gives the python of SetFit's own environment; None where it cannot be installed."""
    try:
        return common.environment("setfit", PEER)
    except subprocess.CalledProcessError as error:
        print(f"SetFit is left out: {error}", file=sys.stderr)
        return None


def run_seed(
    part: str, seed: int, rows: list[Row], budget: str, peer: Path | None, *, short: bool
) -> dict[str, Any]:
    """Runs the arms of one seed in turn."""
    import numpy as np

    order = np.random.default_rng(77).permutation(len(rows))
    test = [rows[at] for at in order[:TEST_ROWS]]
    asked = {text.casefold() for text, _ in test}
    pool = [rows[at] for at in order[TEST_ROWS:] if rows[at][0].casefold() not in asked]
    chance = np.random.default_rng(seed)
    mixed = [pool[at] for at in chance.permutation(len(pool))]
    train = few_of(mixed) if part == "few" else mixed[: QUICK_ROWS if short else None]
    found: dict[str, Any] = {"seed": seed, "date": common.now(), "commit": common.commit()}
    found["rows"] = len(train)
    with common.empty_store() as folder:
        for name, some in (("train", train), ("test", test)):
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *some])
        heldout = 0 if part == "few" else 0.1
        for arm, method, limit in (("probe", "probe", None), ("auto", "auto", budget)):
            found[arm] = run_ours(folder, f"{part}-{arm}-{seed}", seed, method, heldout, limit)
            say(f"{part} seed {seed}, {arm}", found[arm])
        if peer is not None and part == "few":
            try:
                found["setfit"] = run_peer(folder, peer, train, test, seed, found["auto"]["stage_seconds"])
            except SystemExit as error:
                # Our arms are kept all the same; the result says that the peer did not run, and why.
                found["setfit_failed"] = str(error)[-800:]
                print(f"SetFit did not run: {error}", file=sys.stderr)
    return found


def few_of(rows: list[Row]) -> list[Row]:
    """Takes the first rows of each label."""
    seen: dict[str, int] = {}
    found = []
    for text, label in rows:
        if seen.setdefault(label, 0) < EACH:
            seen[label] += 1
            found.append((text, label))
    return found


def run_ours(
    folder: Path, name: str, seed: int, method: str, heldout: float, budget: str | None
) -> dict[str, Any]:
    """Runs a recipe from files to scores of the test rows."""
    stages = [
        {
            "data.read": {
                "path": str(folder / "train.csv"),
                "columns": {"text": "text", "label": "label"},
                "heldout": heldout,
                "test": str(folder / "test.csv"),
            }
        },
        {"model.read": {"name": "minilm"}},
        {"train.classify": {"method": method}},
        {"evaluate": {"split": "test"}},
    ]
    limit = {} if budget is None else {"budget": {"time": budget}}
    path = common.recipe(folder, name, {"seed": seed, "stages": stages, **limit})
    done = common.kogata("run", str(path), cwd=folder)
    receipts = {row["stage"]: row for row in done["receipts"]}
    made, scored = receipts["train.classify"], receipts["evaluate"]["facts"]["labels"]
    return {
        "accuracy": scored["accuracy"],
        "standard_error": scored["standard_error"],
        "macro_f1": scored["macro_f1"],
        "method": made["facts"]["method"],
        "chosen": made["facts"]["chosen"],
        "methods": made["facts"]["methods"],
        "left_out": made["facts"]["left_out"],
        "stage_seconds": made["cost"]["seconds"],
        "forecast_seconds": (made["forecast"] or {}).get("seconds"),
        "peak_bytes": made["cost"]["peak_bytes"],
        "forecast_peak_bytes": (made["forecast"] or {}).get("peak_bytes"),
        "wall_seconds": done["wall_seconds"],
    }


def run_peer(
    folder: Path, python: Path, train: list[Row], test: list[Row], seed: int, seconds: float
) -> list[dict[str, Any]]:
    """Runs SetFit at its rates on the first seed, and at the better of them on the others."""
    from kogata.engine.sources import find_model

    names = sorted({label for _, label in train})
    parts = {
        name: {"text": [text for text, _ in some], "label": [names.index(label) for _, label in some]}
        for name, some in (("train", train), ("test", test))
    }
    (folder / "rows.json").write_text(json.dumps(parts), encoding="utf-8")
    encoder = find_model("minilm").path
    assert encoder is not None
    rates = PEER_RATES if seed == 0 else (better_rate(),)
    script = Path(__file__).parent / "peers" / "setfit_few.py"
    found = []
    for lr in rates:
        words = (folder / "rows.json", encoder, folder / "setfit", seconds, lr, seed)
        run = common.run_peer(python, str(script), *map(str, words), cwd=folder)
        found.append(run)
        say(f"few seed {seed}, SetFit at {lr:g}", run)
    return found


def better_rate() -> float:
    """Gives the rate that did better on the first seed; SetFit's default where it was not run."""
    held = earlier("classify")["few"] or earlier("classify-quick")["few"]
    first = [row for row in held if row["seed"] == 0 and row.get("setfit")]
    return max(PEER_RATES, key=lambda lr: peer_accuracy(first, lr)) if first else PEER_RATES[0]


def say(what: str, row: dict[str, Any]) -> None:
    """Says an arm's result."""
    method = f" ({row['method']}: {row['chosen']})" if "method" in row else ""
    print(f"{what}: {row['accuracy']:.4f} in {row['wall_seconds']:.0f} s{method}", file=sys.stderr)


if __name__ == "__main__":
    main()
