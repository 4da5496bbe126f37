"""Long sequences: what windows, memories and recurrences save, what they forget, what they are worth.

Parts, all unless `--part` names one; a part written later is added to the same result file.

- steps: seconds of a training step (forward and backward pass of one sequence, 8 layers x 256) with one full
  layer in eight and windows of 256 elsewhere, against full attention everywhere: in turn, the ratio of FLOPs
  beside it. And of the gated delta rule per token, 8,192 against 2,048 tokens in a sequence.
- cache: bytes of the decode cache after the longest of these; seconds of a new token after 8,192 tokens
  against after 2,048.
- recall: multi-query associative recall by pattern, models of 2 layers x 64 whose windows see 8 tokens.
- quality: bits per byte on the examples' novels at equal training time, 8 layers x 128 in windows of 4,096.

    python benchmarks/bench_long.py --full [--part steps|cache|recall|quality] [--seconds 150] [--seeds 3]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import common
import torch
from long_tasks import RECALL_WINDOW, VOCAB, Step, recall, spec_of, tensors_of

from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels

NOVELS = str(common.ROOT / "examples" / "data" / "novels" / "*.txt.gz")
HELD = str(common.ROOT / "examples" / "data" / "novels-heldout" / "*.txt.gz")
WINDOW = {"window": {"size": 256}}
WINDOWS = [WINDOW] * 7 + ["full"]
FULL = ["full"]
LONG = (2048, 8192)
TOKEN_BARS = {"gated_delta": 1.05, "gated_delta_full": 1.25}
PARTS = ("steps", "cache", "recall", "quality")


def steps(full: bool) -> dict[str, Any]:
    """Times training steps with products in float32, and in bf16 where the processor has such."""
    from kogata.engine.precision import products_in
    from kogata.runtime.machine import machine_profile

    found = {}
    for form in ("fp32", "bf16") if machine_profile().bf16_flops else ("fp32",):
        say(f"products in {form}:")
        with products_in(form):
            found[form] = steps_now(full)
    return found


def steps_now(full: bool) -> dict[str, Any]:
    """Times training steps by pattern and length."""
    kernels = Kernels.build()
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "lengths": {}, "recurrent": {}}
    for length, rounds in ((4096, 5), (16_384, 3)) if full else ((4096, 2),):
        specs = {"full": spec_of(FULL, length), "windows": spec_of(WINDOWS, length)}
        made = {name: Step(spec, 1, length, kernels) for name, spec in specs.items()}
        # A step of 16,384 tokens takes so long that what warms up is one of the shorter ones before it.
        seconds = in_turn(made, rounds, warm=length == 4096)
        ratio = specs["full"].flops_per_token(length) / specs["windows"].flops_per_token(length)
        faster = statistics.median(seconds["full"]) / statistics.median(seconds["windows"])
        bar = {4096: 1.45, 16_384: 2.6}[length]
        found["lengths"][str(length)] = {
            "seconds": seconds, "faster": faster, "flop_ratio": ratio, "of_flop_ratio": faster / ratio,
            "bar": bar, "reached": faster >= bar and faster >= 0.9 * ratio,
        }  # fmt: skip
        say(f"{length} tokens: windows {faster:.2f} times as fast, FLOP ratio {ratio:.2f}")
        del made
    for name, pattern in recurrent().items():
        spec = spec_of(pattern, LONG[1])
        made = {str(n): Step(spec, LONG[1] // n, n, kernels) for n in LONG}
        seconds = in_turn(made, 5 if full else 2, warm=True)
        ratio = statistics.median(seconds[str(LONG[1])]) / statistics.median(seconds[str(LONG[0])])
        found["recurrent"][name] = {
            "seconds": seconds,
            "tokens": LONG[1],
            "ratio": ratio,
            "bar": TOKEN_BARS[name],
        }
        found["recurrent"][name]["reached"] = ratio <= TOKEN_BARS[name]
        say(f"training, {name}: a token at 8,192 takes {ratio:.3f} of one at 2,048")
    return found


def recurrent() -> dict[str, list[Any]]:
    """Gives the recurrent patterns, without and with a full layer."""
    return {"gated_delta": ["gated_delta"], "gated_delta_full": ["gated_delta"] * 7 + ["full"]}


def in_turn(made: dict[str, Step], rounds: int, *, warm: bool) -> dict[str, list[float]]:
    """Takes steps of each in turn, forwards and backwards; gives the seconds of all."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds + warm):
        names = list(made) if turn % 2 else list(made)[::-1]
        for name in names:
            took = made[name].seconds()
            if turn or not warm:
                seconds[name].append(took)
    return seconds


CACHED = {
    "full": (FULL, {}), "windows": (WINDOWS, {}), "full_multi_query": (FULL, {"kv_heads": 1}),
    "windows_multi_query": (WINDOWS, {"kv_heads": 1}), "full_reuse": (["full", "reuse"], {}),
    "compressive": ([{"compressive": {"size": 256}}], {}), "gated_delta": (["gated_delta"], {}),
    "gated_delta_full": (["gated_delta"] * 7 + ["full"], {}),
    "short_conv_full": (["short_conv"] * 7 + ["full"], {}),
}  # fmt: skip


@torch.no_grad()
def cache(full: bool) -> dict[str, Any]:
    """Counts the bytes of filled caches, and times new tokens."""
    length = 16_384 if full else 4096
    found: dict[str, Any] = {"length": length, "bytes": {}, "forecast_bytes": {}, "tokens": {}}
    for name, (pattern, more) in CACHED.items():
        # Buffers have their final size from the start; feed-forward parts are not counted: they are small.
        spec = spec_of(pattern, length, ffn_width=64, vocab_size=64, **more)
        decoder = Decoder(spec, seed=0).eval()
        held = decoder.new_cache(1, length)
        decoder.hidden(torch.zeros(1, 600, dtype=torch.long), cache=held)
        found["bytes"][name] = sum(4 * tensor.numel() for tensor in tensors_of(held.states))
        found["forecast_bytes"][name] = spec.cache_bytes(length)
        say(f"cache of {name}: {found['bytes'][name]:,} bytes")
    found["ratio"] = found["bytes"]["windows"] / found["bytes"]["full"]
    found["reached"] = found["ratio"] <= 0.25
    for name, pattern in {**recurrent(), "windows": WINDOWS, "full": FULL}.items():
        seconds = token_seconds(pattern, 96 if full else 24)
        ratio = statistics.median(seconds[str(LONG[1])]) / statistics.median(seconds[str(LONG[0])])
        row: dict[str, Any] = {"seconds": seconds, "ratio": ratio}
        bar = TOKEN_BARS.get(name)
        found["tokens"][name] = row | ({} if bar is None else {"bar": bar, "reached": ratio <= bar})
        say(f"a new token, {name}: {ratio:.3f} of the time after 8,192 tokens against 2,048")
    return found


def token_seconds(pattern: list[Any], count: int) -> dict[str, list[float]]:
    """Times new tokens after a short and a long text, in turn."""
    decoder = Decoder(spec_of(pattern, LONG[1] + count + 4), seed=0).eval()
    caches = {}
    for length in LONG:
        caches[length] = decoder.new_cache(1, length + count + 4)
        for _ in range(0, length, 2048):
            decoder.hidden(torch.zeros(1, 2048, dtype=torch.long), cache=caches[length])
    seconds: dict[str, list[float]] = {str(length): [] for length in LONG}
    for turn in range(count + 4):
        for length in LONG if turn % 2 else LONG[::-1]:
            began = time.perf_counter()
            decoder.logits(decoder.hidden(torch.zeros(1, 1, dtype=torch.long), cache=caches[length]))
            if turn >= 4:
                seconds[str(length)].append(time.perf_counter() - began)
    return seconds


LOCAL, FAR = {"window": {"size": RECALL_WINDOW}}, {"compressive": {"size": RECALL_WINDOW}}
WITH_FULL: dict[str, list[Any]] = {
    "full": ["full"],
    "window_full": [LOCAL, "full"],
    "gated_delta_full": ["gated_delta", "full"],
    "gated_delta_gated_full": ["gated_delta", "gated_full"],
    "short_conv_full": ["short_conv", "full"],
    "compressive_full": [FAR, "full"],
    "full_reuse": ["full", "reuse"],
}
WITHOUT = {
    "window": [LOCAL], "compressive": [FAR], "short_conv": ["short_conv"], "gated_delta": ["gated_delta"],
}  # fmt: skip


def recall_part(full: bool) -> dict[str, Any]:
    """Measures recall of every pattern."""
    most, rows, lr = (1200 if full else 300), 64, 0.004
    found: dict[str, Any] = {"most_steps": most, "rows": rows, "lr": lr, "with_full": {}, "without": {}}
    chosen = WITH_FULL if full else dict(list(WITH_FULL.items())[1:3])
    for name, pattern in chosen.items():
        row = recall(pattern, most, rows, lr, 0)
        found["with_full"][name] = {**row, "reached": row["recall"] >= 0.95}
        say(f"recall, {name}: {row['recall']:.3f} after {row['steps']} steps, {row['seconds']:.0f} s")
    for name, pattern in (WITHOUT if full else {"window": WITHOUT["window"]}).items():
        row = found["without"][name] = recall(pattern, most, rows, lr, 0)
        say(f"recall, {name}: {row['recall']:.3f} after {row['steps']} steps, {row['seconds']:.0f} s")
    return found


def quality(seconds: float, seeds: int) -> dict[str, Any]:
    """Trains full attention and windows for the same time, in turn, and scores both."""
    arms: dict[str, list[dict[str, Any]]] = {"full": [], "windows": []}
    with common.empty_store() as folder:
        for seed in range(seeds):
            for name in list(arms) if seed % 2 == 0 else list(arms)[::-1]:
                arms[name].append(train(folder, name, seconds, seed))
                say(f"{name}, seed {seed}: {arms[name][-1]}")
    pairs = list(zip(arms["full"], arms["windows"], strict=True))
    gains = [full["bits_per_byte"] - windows["bits_per_byte"] for full, windows in pairs]
    long = [full["bits_per_byte_4096"] - windows["bits_per_byte_4096"] for full, windows in pairs]
    return {
        "seconds": seconds, "context": 4096, "shape": "8 layers x 128, qwen3", "arms": arms,
        "gain_bits_per_byte": gains, "gain_bits_per_byte_4096": long,
        "reached": min(statistics.median(gains), statistics.median(long)) >= -0.01,
    }  # fmt: skip


def train(folder: Path, name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Trains one arm once."""
    pattern = WINDOWS if name == "windows" else FULL
    shape = {"family": "qwen3", "layers": 8, "width": 128, "heads": 2, "pattern": pattern}
    score = {"minimal_pairs": False, "sample_tokens": 0}
    stages: list[dict[str, Any]] = [
        {"data.read": {"path": NOVELS, "heldout": HELD}},
        {"tokenizer.train": {"vocab_size": VOCAB}},
        {"tokenizer.encode": {}},
        {"train.pretrain": {"time": f"{seconds}s", "context": 4096, "batch": 4096, "model": shape}},
        {"evaluate": {**score, "as": "usual"}},
        {"evaluate": {**score, "window": 4096, "as": "long"}},
    ]
    path = common.recipe(folder, f"{name}-{seed}", {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    receipts = read_receipts(folder / "runs" / f"{name}-{seed}")
    trained = next(item for item in receipts if item.stage == "train.pretrain")
    usual, long = (item.facts["bits_per_byte"]["value"] for item in receipts if item.stage == "evaluate")
    training = trained.facts["training"]
    assert trained.cost is not None
    return {
        "seed": seed, "bits_per_byte": usual, "bits_per_byte_4096": long, "steps": training["steps"],
        "tokens": training["tokens"], "wall_seconds": trained.cost.seconds,
    }  # fmt: skip


def say(line: str) -> None:
    """Tells how it goes."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measures the parts asked for and writes them into the result file."""
    options = common.arguments(
        __doc__ or "",
        ("--part", {"choices": PARTS, "help": "only this part"}),
        ("--seconds", {"type": float, "help": "of training in `quality`"}),
        ("--seeds", {"type": int, "help": "of `quality`"}),
    )
    name = "long" if options.full else "long-quick"
    path = common.RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts = {part: before[part] for part in PARTS if part in before}
    for part in PARTS if options.part is None else (options.part,):
        began = time.perf_counter()
        if part == "quality":
            seconds = options.seconds or (150.0 if options.full else 20.0)
            found = quality(seconds, options.seeds or (3 if options.full else 1))
        else:
            found = {"steps": steps, "cache": cache, "recall": recall_part}[part](options.full)
        took = time.perf_counter() - began
        parts[part] = {**found, "commit": common.commit(), "date": common.now(), "took_seconds": took}
        common.write_result(name, parts)


if __name__ == "__main__":
    main()
