"""English novels from scratch: Kogata's default against nanochat's base_train and LitGPT's pretrain.

Parts, both unless `--peer` names one; a part measured later is added to the same result file. Each peer
trains with its own command on the same text, at the size that suits these minutes (3 layers x 192, 4,096
entries, 2,048 tokens a step), with three learning rates at the first seed and its best at the others. Its
steps are chosen from a probe so that they fill the seconds; its clock is the sum of what it prints for its
steps, the first of which compiles: imports, loading and saving are not counted, which favours it. Kogata runs
as it comes, in turn with them, its whole stage counted. `--long` adds one pair of that many seconds, the peer
at the rate that won.

    python benchmarks/bench_pretrainers.py --full --peer nanochat --nanochat CHECKOUT-OR-GIT-DIRECTORY
    python benchmarks/bench_pretrainers.py --full --peer litgpt [--long 1200]
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_novels
import common

LAYERS, WIDTH, HEADS, ROWS, CONTEXT, VOCABULARY = 3, 192, 3, 8, 256, 4096
BARS = {"short": 0.08, "long": 0.05}
TORCH = "torch==2.13.0"
NANOCHAT_PACKAGES = [
    TORCH, "numpy", "pyarrow", "rustbpe", "tiktoken", "filelock", "psutil", "requests", "pyyaml", "jinja2",
    "wandb", "setuptools",
]  # fmt: skip
LITGPT_PACKAGES = [TORCH, "litgpt==0.5.13", "litdata==0.2.59", "torchmetrics", "numpy", "pyyaml", "requests"]
NANOCHAT_SETTINGS = [1.0, 2.0, 4.0]
"""Times its own rates, which it scales down for small steps itself."""
LITGPT_SETTINGS = [1.5e-3, 3e-3, 6e-3]
PROBE_STEPS = 24
PEERS = Path(__file__).parent / "peers"

Trained = tuple[list[float], Path]
"""Seconds of each step, and the folder of the weights."""


def run(words: list[str], cwd: Path, home: Path) -> str:
    """Runs a peer's command; each run compiles anew, as its user's first run does."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "KOGATA"))}
    clean |= {
        "NANOCHAT_BASE_DIR": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / f"compiled-{time.time()}"),
    }
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=clean)
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout + "\n" + done.stderr


class Nanochat:
    """karpathy/nanochat: its tokenizer, its base_train, at the shape of the others."""

    settings = NANOCHAT_SETTINGS

    def __init__(self, folder: Path, source: Path, train: list[str], heldout: Path) -> None:
        self.python = str(common.environment("nanochat", NANOCHAT_PACKAGES))
        self.checkout, self.home, self.heldout = folder / "nanochat", folder / "nanochat-home", heldout
        self.checkout.mkdir()
        packed = subprocess.run(
            ["git", "-C", str(source), "archive", "HEAD"], capture_output=True, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(self.checkout)], input=packed, check=True)
        self.commit = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        texts = folder / "train.json"
        texts.write_text(json.dumps(train), encoding="utf-8")
        data = self.home / "base_data_climbmix"
        run([self.python, str(PEERS / "nanochat_prepare.py"), str(texts), str(data)], folder, self.home)
        words = [self.python, "-m", "scripts.tok_train", f"--vocab-size={VOCABULARY}"]
        run(words, self.checkout, self.home)
        self.common = self.checkout / "nanochat" / "common.py"
        self.source = self.common.read_text(encoding="utf-8")
        assert "torch.manual_seed(42)" in self.source

    def train(self, steps: int, setting: float, seed: int) -> Trained:
        """Trains with its base_train."""
        seeded = self.source.replace("torch.manual_seed(42)", f"torch.manual_seed({42 + seed})")
        self.common.write_text(seeded, encoding="utf-8")
        rates = {"matrix": 0.02, "embedding": 0.3, "unembedding": 0.008, "scalar": 0.5}
        tag = f"{setting:g}-{seed}-{steps}"
        words = [
            self.python, "-m", "scripts.base_train", "--device-type=cpu", f"--depth={LAYERS}",
            f"--aspect-ratio={WIDTH // LAYERS}", f"--head-dim={WIDTH // HEADS}", f"--max-seq-len={CONTEXT}",
            "--window-pattern=L", f"--device-batch-size={ROWS}", f"--total-batch-size={ROWS * CONTEXT}",
            f"--num-iterations={steps}", "--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1",
            f"--model-tag={tag}", *(f"--{name}-lr={rate * setting:g}" for name, rate in rates.items()),
        ]  # fmt: skip
        said = run(words, self.checkout, self.home)
        seconds = [float(found) / 1000 for found in re.findall(r"\| dt: ([\d.]+)ms", said)]
        return seconds, self.home / "base_checkpoints" / tag

    def score(self, folder: Path) -> dict[str, Any]:
        """Scores its checkpoint in its own environment."""
        words = [str(self.checkout), str(folder), str(self.heldout), "256"]
        said = run(
            [self.python, str(PEERS / "nanochat_score.py"), *words], self.checkout, self.home
        ).splitlines()
        return json.loads(next(line for line in said if line.startswith("{")))


class LitGPT:
    """LitGPT's pretrain: a Llama shape, AdamW, cosine, its TextFiles over the novels."""

    settings = LITGPT_SETTINGS
    commit = LITGPT_PACKAGES[1]

    def __init__(self, folder: Path, files: dict[str, Path], train: list[str], heldout: Path) -> None:
        self.python = str(common.environment("litgpt", LITGPT_PACKAGES))
        # litdata asks for torchvision, whose usual build does not load beside a CPU build of torch; it works
        # without.
        words = [self.python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"]
        subprocess.run(words, check=True, capture_output=True)
        self.folder, self.tokenizer, self.heldout = folder, files["tokenizer"], heldout
        for part, texts in (("train", train), ("val", json.loads(heldout.read_text(encoding="utf-8")))):
            place = folder / "litgpt-text" / part
            place.mkdir(parents=True)
            for number, text in enumerate(texts):
                (place / f"{number:03d}.txt").write_text(text, encoding="utf-8")

    def train(self, steps: int, setting: float, seed: int) -> Trained:
        """Trains with its command."""
        text, out = self.folder / "litgpt-text", self.folder / f"litgpt-{setting:g}-{seed}-{steps}"
        config = {
            "model_name": "pythia-14m",
            "model_config": {
                "name": "novels", "block_size": CONTEXT, "n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS,
                "vocab_size": VOCABULARY, "padded_vocab_size": VOCABULARY, "norm_class_name": "RMSNorm",
                "mlp_class_name": "LLaMAMLP", "intermediate_size": int(WIDTH * 8 / 3) // 32 * 32,
                "bias": False, "parallel_residual": False, "rotary_percentage": 1.0,
            },
            "out_dir": str(out), "precision": "32-true", "devices": 1, "seed": 42 + seed,
            "tokenizer_dir": str(self.tokenizer), "logger_name": "csv",
            "data": {
                "class_path": "TextFiles",
                "init_args": {
                    "train_data_path": str(text / "train"), "val_data_path": str(text / "val"),
                    "num_workers": 1, "seed": 42 + seed,
                },
            },
            "train": {
                "save_interval": None, "log_interval": 1, "global_batch_size": ROWS, "micro_batch_size": ROWS,
                "max_tokens": steps * ROWS * CONTEXT, "max_seq_length": CONTEXT, "max_norm": 1.0,
                "lr_warmup_steps": max(10, steps // 20), "min_lr": setting / 10, "tie_embeddings": True,
            },
            "eval": {"interval": 10**9, "max_iters": 1, "final_validation": False},
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": setting, "weight_decay": 0.1, "betas": [0.9, 0.95]},
            },
        }  # fmt: skip
        path = self.folder / "litgpt.yaml"
        path.write_text(json.dumps(config, indent=1), encoding="utf-8")
        words = [self.python, "-m", "litgpt", "pretrain", "--config", str(path)]
        said = run(words, self.folder, self.folder)
        return [float(found) / 1000 for found in re.findall(r"iter time: ([\d.]+) ms", said)], out / "final"

    def score(self, folder: Path) -> dict[str, Any]:
        """Scores its checkpoint in its own environment."""
        words = [str(PEERS / "litgpt_score.py"), str(folder), str(self.heldout), "256"]
        said = run([self.python, *words], self.folder, self.folder).splitlines()
        return json.loads(next(line for line in said if line.startswith("{")))


def peer_run(peer: Nanochat | LitGPT, seconds: float, setting: float, seed: int) -> dict[str, Any]:
    """Trains a peer for the seconds and scores it."""
    probe, _ = peer.train(PROBE_STEPS, setting, seed)
    pace = statistics.median(probe[PROBE_STEPS // 2 :])
    steps = max(1, int((seconds - (probe[0] - pace)) / pace))
    each, folder = peer.train(steps, setting, seed)
    assert len(each) == steps, f"{len(each)} of {steps} steps were timed"
    row = {"setting": setting, "seed": seed, "steps": steps, "wall_seconds": sum(each)}
    row |= {"first_step_seconds": each[0], "step_seconds": statistics.median(each), **peer.score(folder)}
    row["tokens_per_second"] = steps * ROWS * CONTEXT / row["wall_seconds"]
    return row


def compare(
    peer: Nanochat | LitGPT, ours: Callable[[float, int], dict[str, Any]], seconds: float, seeds: list[int]
) -> dict[str, Any]:
    """Sweeps the peer's settings at the first seed, then runs both sides in turn."""
    mine, sweep = [ours(seconds, seeds[0])], []
    for setting in peer.settings:
        sweep.append(peer_run(peer, seconds, setting, seeds[0]))
        say("peer", sweep[-1])
    best = min(sweep, key=lambda row: row["bits_per_byte"])
    theirs = [best]
    for seed in seeds[1:]:
        mine.append(ours(seconds, seed))
        theirs.append(peer_run(peer, seconds, best["setting"], seed))
        say("peer", theirs[-1])
    return judged(mine, theirs, "short") | {"seconds": seconds, "seeds": seeds, "sweep": sweep}


def judged(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], bar: str) -> dict[str, Any]:
    """Sets both sides beside each other."""
    gains = [a["bits_per_byte"] - b["bits_per_byte"] for a, b in zip(theirs, mine, strict=True)]
    reached = statistics.median(gains) >= BARS[bar]
    return {
        "arms": {"kogata": mine, "peer": theirs}, "gain_bits_per_byte": gains, "bar": BARS[bar],
        "reached": reached,
    }  # fmt: skip


def say(side: str, row: dict[str, Any]) -> None:
    """Tells how a run went."""
    print(f"{side}: {row['bits_per_byte']:.4f} bits per byte in {row['wall_seconds']:.0f} s; {row}",
          file=sys.stderr, flush=True)  # fmt: skip


def main() -> None:
    """Measures the peers asked for and writes them into pretrainers.json."""
    options = common.arguments(
        __doc__ or "",
        ("--corpus", {"help": "folder with prose/ and heldout/"}),
        ("--peer", {"choices": ("nanochat", "litgpt"), "help": "only this one"}),
        (
            "--nanochat",
            {"help": "a clone of karpathy/nanochat, or its git directory; or KOGATA_BENCH_NANOCHAT"},
        ),
        ("--seconds", {"type": float, "help": "of training"}),
        ("--seeds", {"type": int, "help": "paired"}),
        ("--long", {"type": float, "default": 0.0, "help": "seconds of one long pair; 0: none"}),
    )
    train, held = bench_novels.places(options.corpus)
    seconds = options.seconds or (288.0 if options.full else 60.0)
    seeds = list(range(options.seeds or (3 if options.full else 1)))
    source = options.nanochat or os.environ.get("KOGATA_BENCH_NANOCHAT")
    name = "pretrainers" if options.full else "pretrainers-quick"
    path = common.RESULTS / f"{name}.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = {peer: parts[peer] for peer in ("nanochat", "litgpt") if peer in parts}
    for which in ("nanochat", "litgpt") if options.peer is None else (options.peer,):
        if which == "nanochat" and not source:
            print("left out: nanochat needs a clone (--nanochat, or KOGATA_BENCH_NANOCHAT)", file=sys.stderr)
            continue
        with common.empty_store() as folder:
            files, heldout = bench_novels.prepare_peer(folder, train, held)
            (folder / "heldout.json").write_text(json.dumps(heldout), encoding="utf-8")
            texts = bench_novels.read(train)
            peer: Nanochat | LitGPT
            if which == "nanochat" and source is not None:
                peer = Nanochat(folder, Path(source).resolve(), texts, folder / "heldout.json")
            else:
                peer = LitGPT(folder, files, texts, folder / "heldout.json")

            def ours(
                length: float, seed: int, folder: Path = folder, heldout: list[str] = heldout
            ) -> dict[str, Any]:
                row = bench_novels.run_ours(folder, train, held, heldout, length, seed)
                say("kogata", row)
                return row

            found = compare(peer, ours, seconds, seeds)
            found |= {"commit": common.commit(), "date": common.now(), "peer_version": peer.commit}
            found["shape"] = f"{LAYERS} layers x {WIDTH}, {VOCABULARY} entries, {ROWS} x {CONTEXT} tokens"
            parts[which] = found
            common.write_result(name, parts)
            if options.long:
                mine = ours(options.long, seeds[0])
                setting = found["arms"]["peer"][0]["setting"]
                long = peer_run(peer, options.long, setting, seeds[0])
                say("peer", long)
                found["long"] = judged([mine], [long], "long") | {"seconds": options.long}
                common.write_result(name, parts)


if __name__ == "__main__":
    main()
