"""Tiny Shakespeare by character: nanoGPT's final loss within a fraction of its stepping time.

karpathy/nanoGPT runs beside us at the CPU setting of its README (4 layers × 128, block 64, batch 12,
2,000 iterations). Its clock is the sum of its own step times, evaluation not counted; ours is the whole
training stage from data in memory to final weights. Both are scored over the whole validation part (the
last tenth) in blocks of 64, ours from the exported folder by plain transformers, without an end token.

    python benchmarks/bench_shakespeare.py --full --nanogpt CHECKOUT-OR-GIT-DIRECTORY
"""

from __future__ import annotations

import gzip
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import common

BLOCK = 64
ITERATIONS = 2000
FRACTION = 4
AROUND_SECONDS = 1.2
"""Of our clock, kept for what stands around training: the stage's start, and sealing the weights."""


def main() -> None:
    """Runs both sides in turn and writes shakespeare.json."""
    options = common.arguments(
        __doc__ or "",
        ("--nanogpt", {"help": "a clone of karpathy/nanoGPT, or its git directory; or KOGATA_BENCH_NANOGPT"}),
        (
            "--fraction",
            {"type": float, "default": FRACTION, "help": "our clock is its stepping time over this"},
        ),
    )
    options.nanogpt = options.nanogpt or os.environ.get("KOGATA_BENCH_NANOGPT")
    if not options.nanogpt:
        print(
            "left out: needs a clone of karpathy/nanoGPT (--nanogpt, or KOGATA_BENCH_NANOGPT)",
            file=sys.stderr,
        )
        return
    iterations = ITERATIONS if options.full else ITERATIONS // 4
    seeds = [0, 1, 2]
    with common.empty_store() as folder:
        text = gzip.open(
            common.ROOT / "examples/data/shakespeare/input.txt.gz", "rt", encoding="utf-8"
        ).read()
        python = common.environment("hf", ["torch==2.13.0", "transformers==5.23.0", "accelerate", "numpy"])
        checkout = check_out(Path(options.nanogpt), folder, text)
        arms: dict[str, list[dict[str, Any]]] = {"nanogpt": [], "kogata": []}
        for seed in seeds:
            peer = run_nanogpt(python, checkout, iterations, seed)
            print(f"nanoGPT: {peer['loss']:.4f} in {peer['stepping_seconds']:.1f} s", file=sys.stderr)
            arms["nanogpt"].append(peer)
            mine = run_ours(folder, text, peer["stepping_seconds"] / options.fraction, seed)
            print(f"kogata: {mine['loss']:.4f} in {mine['wall_seconds']:.1f} s", file=sys.stderr)
            arms["kogata"].append(mine)
    reached = statistics.median(row["loss"] for row in arms["kogata"])
    target = statistics.median(row["loss"] for row in arms["nanogpt"])
    pairs = zip(arms["kogata"], arms["nanogpt"], strict=True)
    shares = [mine["wall_seconds"] / peer["stepping_seconds"] for mine, peer in pairs]
    result = {
        "block": BLOCK,
        "iterations": iterations,
        "fraction": options.fraction,
        "seeds": seeds,
        "arms": arms,
        "median_loss": {"nanogpt": target, "kogata": reached},
        "share_of_time": shares,
        "reached": reached <= target and statistics.median(shares) <= 1 / options.fraction,
        "peer_commit": subprocess.run(
            ["git", "-C", str(options.nanogpt), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
    }
    name = "shakespeare" if options.fraction == FRACTION else f"shakespeare-{options.fraction:g}"
    common.write_result(name if options.full else f"{name}-quick", result)


def check_out(source: Path, folder: Path, text: str) -> Path:
    """Lays nanoGPT's files into a folder and its data beside them, as its prepare.py would."""
    import json

    import numpy as np

    place = folder / "nanogpt"
    place.mkdir()
    packed = subprocess.run(["git", "-C", str(source), "archive", "HEAD"], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)
    characters = sorted(set(text))
    number = {character: index for index, character in enumerate(characters)}
    cut = int(len(text) * 0.9)
    for name, part in (("train", text[:cut]), ("val", text[cut:])):
        ids = np.array([number[character] for character in part], dtype=np.uint16)
        ids.tofile(place / "data" / "shakespeare_char" / f"{name}.bin")
    (place / "characters.json").write_text(json.dumps(characters))
    # Its train.py takes the vocabulary from a pickle; written by the same library it is read with.
    import pickle

    meta = {"vocab_size": len(characters)}
    (place / "data" / "shakespeare_char" / "meta.pkl").write_bytes(pickle.dumps(meta))
    return place


def run_nanogpt(python: Path, checkout: Path, iterations: int, seed: int) -> dict[str, Any]:
    """Trains nanoGPT by its own script and scores its checkpoint."""
    source = (checkout / "train.py").read_text()
    assert "torch.manual_seed(1337 + seed_offset)" in source
    seeded = source.replace("torch.manual_seed(1337 + seed_offset)", f"torch.manual_seed({1337 + seed})")
    (checkout / "train_seeded.py").write_text(seeded)
    words = "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12"
    words += f" --n_layer=4 --n_head=4 --n_embd=128 --max_iters={iterations} --lr_decay_iters={iterations}"
    words += f" --dropout=0.0 --out_dir=out-{seed} --always_save_checkpoint=True --eval_interval={iterations}"
    done = subprocess.run(
        [str(python), "train_seeded.py", "config/train_shakespeare_char.py", *words.split()],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    times = [
        float(found) / 1000 for found in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", done.stdout)
    ]
    usual = statistics.median(times)
    stepping = sum(time if time < 3 * usual else usual for time in times[:iterations])
    score = Path(__file__).parent / "peers" / "nanogpt_score.py"
    val = checkout / "data" / "shakespeare_char" / "val.bin"
    row = common.run_peer(
        python,
        str(score),
        str(checkout),
        str(checkout / f"out-{seed}" / "ckpt.pt"),
        str(val),
        str(BLOCK),
        cwd=checkout,
    )
    return {"seed": seed, "stepping_seconds": stepping, "step_seconds": usual, **row}


def run_ours(
    folder: Path,
    text: str,
    seconds: float,
    seed: int,
    *,
    name: str = "",
    more: dict[str, Any] | None = None,
    block: int = BLOCK,
) -> dict[str, Any]:
    """Trains Kogata by character within so many seconds and scores its exported folder."""
    name = name or f"shakespeare-{seed}"
    settings = {"context": BLOCK, **(more or {})}
    path = common.recipe(
        folder,
        name,
        {
            "seed": seed,
            "stages": [
                {
                    "data.read": {
                        "path": str(common.ROOT / "examples/data/shakespeare/input.txt.gz"),
                        "heldout": {"tail": 0.1},
                    }
                },
                {"tokenizer.train": {"method": "characters"}},
                {"tokenizer.encode": {}},
                {"train.pretrain": {"time": f"{seconds - AROUND_SECONDS:.2f}s", **settings}},
                {"export": {"formats": ["hf"]}},
            ],
        },
    )
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    run = folder / "runs" / name
    receipt = next(item for item in read_receipts(run) if item.stage == "train.pretrain")
    assert receipt.cost is not None
    return {
        "seed": seed,
        "wall_seconds": receipt.cost.seconds,
        "steps": receipt.facts["training"]["steps"],
        "parameters": receipt.facts["parameters"],
        "architecture": receipt.facts["architecture"],
        "loss": score(run / "model", text[int(len(text) * 0.9) :], block),
    }


def score(folder: Path, text: str, block: int = BLOCK) -> float:
    """Gives the mean loss in nats per character in such blocks, by plain transformers, no end token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert len(ids) == len(text), "the tokenizer is not by character"
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, block):
            y = ids[start + 1 : start + block + 1]
            x = ids[start : start + len(y)]
            logits = model(input_ids=x[None]).logits[0]
            total += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
            count += len(y)
    return total / count


if __name__ == "__main__":
    main()
