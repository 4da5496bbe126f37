"""Tokens per second in training at the same shape: Kogata's loop against Hugging Face Trainer's.

The same Llama shapes (tied, context 256, 2,048 tokens a step), the same text, in turn, several rounds: both
sides with products in float32, and, where the processor has such, both in bf16 (the peer's under autocast).
The peer's clock runs over Trainer.train alone; ours over the training steps from the first on
(`tokens_per_second`), and once more over the whole stage with imports, start and writing
(`tokens_per_second_of_the_stage`). Ours is measured with AdamW, which the peer has and which is the default,
and with Muon.

    python benchmarks/bench_speed.py --full
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import bench_novels
import common

SHAPES = {"4 x 256": (4, 256, 4), "6 x 384": (6, 384, 6)}
"""Layers, width, heads."""
BATCH, CONTEXT = 8, 256
NOVELS = str(common.ROOT / "examples" / "data" / "novels" / "*.txt.gz")
HELD = str(common.ROOT / "examples" / "data" / "novels-heldout" / "*.txt.gz")


def peer(
    python: Path, folder: Path, files: dict[str, Path], name: str, precision: str, seconds: float
) -> dict[str, Any]:
    """Trains the peer once."""
    layers, width, heads = SHAPES[name]
    words = [str(files["tokens"]), str(bench_novels.PEER_VOCABULARY), str(folder / "peer"), str(seconds)]
    words += [str(number) for number in (BATCH, layers, width, heads)] + ["0.0015", "0", precision]
    script = common.ROOT / "benchmarks" / "peers" / "hf_pretrain.py"
    return common.run_peer(python, str(script), *words, cwd=folder)


def ours(
    folder: Path, name: str, optimizer: str, precision: str, seconds: float, turn: int
) -> dict[str, Any]:
    """Trains Kogata once at the peer's shape."""
    layers, width, heads = SHAPES[name]
    ffn = int(width * 8 / 3) // 32 * 32
    model = {
        "family": "llama", "layers": layers, "width": width, "heads": heads, "ffn_width": ffn, "tied": True,
    }  # fmt: skip
    train = {
        "model": model, "context": CONTEXT, "batch": BATCH * CONTEXT, "curriculum": "full_length",
        "optimizer": optimizer, "precision": precision, "time": f"{seconds}s",
    }  # fmt: skip
    label = f"ours-{layers}-{optimizer}-{precision}-{turn}"
    stages: list[dict[str, Any]] = [
        {"data.read": {"path": NOVELS, "heldout": HELD}},
        {"tokenizer.train": {"vocab_size": bench_novels.PEER_VOCABULARY}},
        {"tokenizer.encode": {}},
        {"train.pretrain": train},
    ]
    common.kogata("run", str(common.recipe(folder, label, {"seed": turn, "stages": stages})), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    run = folder / "runs" / label
    receipt = next(item for item in read_receipts(run) if item.stage == "train.pretrain")
    assert receipt.cost is not None and receipt.cost.seconds is not None
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    if len(rows) < 3:
        raise SystemExit(f"{label}: {len(rows)} steps in {seconds} s measure nothing; is the machine busy?")
    first, last = rows[0], rows[-1]
    stepping = (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])
    return {
        "tokens_per_second": stepping,
        "tokens_per_second_of_the_stage": receipt.facts["training"]["tokens"] / receipt.cost.seconds,
        "gemm_share": statistics.median(row["gemm_share"] for row in rows if row.get("gemm_share")),
        "parameters": receipt.facts["parameters"],
    }


def faster(arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Sets ours beside the peer, round by round."""
    speed = {arm: [row["tokens_per_second"] for row in rows] for arm, rows in arms.items()}
    ratios = {
        arm: [a / b for a, b in zip(speed[arm], speed["peer"], strict=True)] for arm in ("adamw", "muon")
    }
    return {
        "faster": ratios,
        "median_faster": {arm: statistics.median(rows) for arm, rows in ratios.items()},
        "median_speed": {arm: statistics.median(rows) for arm, rows in speed.items()},
    }


def main() -> None:
    """Runs all sides in turn and writes speed.json."""
    options = common.arguments(__doc__ or "")
    seconds, rounds = (25.0, 3) if options.full else (20.0, 1)
    names = list(SHAPES) if options.full else list(SHAPES)[:1]
    python = common.environment("hf", ["torch==2.13.0", "transformers==5.23.0", "accelerate", "numpy"])
    formats = ["fp32", "bf16"] if bench_novels.has_bf16() else ["fp32"]
    shapes: dict[str, Any] = {}
    with common.empty_store() as folder:
        files, _ = bench_novels.prepare_peer(folder, NOVELS, HELD)
        for name in names:
            shapes[name] = {}
            for form in formats:
                arms: dict[str, list[dict[str, Any]]] = {"peer": [], "adamw": [], "muon": []}
                for turn in range(rounds):
                    arms["adamw"].append(ours(folder, name, "adamw", form, seconds, turn))
                    arms["peer"].append(peer(python, folder, files, name, form, seconds))
                    arms["muon"].append(ours(folder, name, "muon", form, seconds, turn))
                    said = {arm: round(rows[-1]["tokens_per_second"]) for arm, rows in arms.items()}
                    print(f"{name}, {form}: {said}", file=sys.stderr, flush=True)
                shapes[name][form] = {"arms": arms, **faster(arms)}
            best = max(shapes[name][form]["median_speed"]["peer"] for form in formats)
            shapes[name]["over_best"] = {
                arm: shapes[name][formats[-1]]["median_speed"][arm] / best for arm in ("adamw", "muon")
            }
    result = {"seconds": seconds, "shapes": shapes, "batch": BATCH * CONTEXT, "context": CONTEXT}
    common.write_result("speed" if options.full else "speed-quick", result)


if __name__ == "__main__":
    main()
