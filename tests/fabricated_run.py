"""Writes the folder of a run that never was, from core types: what screens and reports are tested on."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from kogata.core.amounts import Cost, Energy
from kogata.core.receipt import Machine, Receipt

HOSTILE = "<script>alert('x')</script> & \"quoted\" </style>"

MACHINE = Machine(
    cores=2,
    isa="avx2 fma",
    model="Intel(R) Xeon(R) Processor @ 2.50GHz",
    memory_bytes=8 * 2**30,
    gemm_flops=151e9,
    gemm_small_flops=128e9,
    stream_bytes=14.2e9,
    watts=(14.0, 38.0),
    watts_source="modelled:package-share",
    compiler=True,
    versions={"python": "3.11.9", "torch": "2.13.0+cpu"},
)

SPEC = {"family": "qwen3", "layers": 6, "width": 192, "heads": 3, "context": 256}

RECIPE = """\
name: novels
budget: {time: 4min, memory: 4GiB}
seed: 0
stages:
- data.read:
    path: data/novels/*.txt.gz   # <script>alert('recipe')</script>
    heldout: data/novels-heldout/*.txt.gz
- data.filter: {min_characters: 200, max_symbol_share: 0.1}
- data.dedup: {}
- tokenizer.train: {vocab_size: 4096}
- tokenizer.encode: {}
- train.pretrain:
    model: {family: qwen3, parameters: 4200000}
    lr: 0.02
    steps: 1180
- evaluate: {prompts: ["The old house", "むかし、"]}
- export: {formats: [hf, gguf-q8_0]}
"""


def energy(seconds: float) -> Energy:
    return Energy(low=14 * seconds, high=38 * seconds, source="modelled:package-share")


def cost(seconds: float, peak: float, **rest: Any) -> Cost:
    return Cost(
        seconds=seconds,
        cpu_seconds=1.9 * seconds,
        joules=energy(seconds),
        peak_bytes=int(peak * 2**20),
        **rest,
    )


def metrics(steps: int = 1180, seconds: float = 193.0, label: str = "train.pretrain") -> list[dict[str, Any]]:
    """A loss curve as such runs have it."""
    dice = random.Random(0)
    rows = []
    for step in range(1, steps + 1, 2):
        part = step / steps
        smooth = 3.15 + 5.2 * math.exp(-step / 42) + 1.1 * math.exp(-step / 420) - 0.25 * max(0, part - 0.6)
        row = {
            "stage": label,
            "step": step,
            "tokens": step * 4096,
            "seconds": round(seconds * part, 2),
            "loss": smooth + dice.gauss(0, 0.07),
            "lr": 0.02 * min(1, step / 20) * min(1, (1 - part) / 0.4 + 1e-3),
            "grad_norm": 0.4 + 1.5 * math.exp(-step / 60) + abs(dice.gauss(0, 0.06)),
            "tokens_per_second": 25100 + dice.gauss(0, 350),
            "gemm_share": 0.46 + dice.gauss(0, 0.01),
        }
        if step % 118 == 1:
            row["heldout_bits_per_byte"] = (smooth + 0.12) / math.log(2) / 3.05
        rows.append(row)
    return rows


def receipts() -> list[Receipt]:
    """The receipts of a run that went well."""
    dice = random.Random(1)
    made = iter(f"{dice.getrandbits(256):064x}" for _ in range(20))
    text = "CHAPTER I. " + HOSTILE
    example = {"value": 0.41, "id": "doyle-12", "source": "Doyle_Hound_1902.txt.gz", "text": text}
    account = {
        "data.read": {
            "read": 17,
            "read_bytes": 9_812_004,
            "kept": 17,
            "kept_bytes": 9_812_004,
            "reasons": {},
            "extra": {"mended_documents": 2, "undecodable_bytes": 41, "nul_characters": 1},
        },
        "data.filter": {
            "read": 17 * 96,
            "read_bytes": 9_812_004,
            "kept": 1589,
            "kept_bytes": 9_640_112,
            "reasons": {"too_short": 31, "too_many_symbols": 12},
            "reason_bytes": {"too_short": 3_100, "too_many_symbols": 168_792},
            "examples": {
                "too_many_symbols": [example],
                "too_short": [
                    {
                        "value": 41,
                        "id": "aozora-3",
                        "source": "夏目漱石",
                        "text": "吾輩は猫である。名前はまだ無い。",
                    }
                ],
            },
        },
        "data.dedup": {
            "read": 1589,
            "read_bytes": 9_640_112,
            "kept": 1585,
            "kept_bytes": 9_611_020,
            "reasons": {"copy_of_heldout": 3, "exact_copy": 1},
            "reason_bytes": {"copy_of_heldout": 22_092, "exact_copy": 7_000},
            "examples": {},
        },
    }
    splits = {"train": {"documents": 1585, "bytes": 9_611_020}, "heldout": {"documents": 1, "bytes": 402_110}}
    tokens = {
        "train": {"documents": 1585, "tokens": 3_151_000, "bytes": 9_611_020},
        "heldout": {"documents": 1, "tokens": 131_800, "bytes": 402_110},
    }
    still = " of the lane was very still, and the woman who had been standing by the door looked at him."
    samples = [
        {"prompt": "The old house at the end", "text": still},
        {
            "prompt": "むかし、",
            "text": "ある村に、おじいさんとおばあさんがありました。おじいさんは山へ柴刈りに行きました。",
        },
        {"prompt": HOSTILE, "text": HOSTILE},
    ]
    bpb = {
        "value": 1.7312,
        "window": 256,
        "documents": 1,
        "bytes": 402_110,
        "tokens": 131_800,
        "loss_nats_per_token": 3.661,
    }
    pairs = {
        "accuracy": 0.5842,
        "standard_error": 0.0071,
        "n": 4800,
        "by_paradigm": {
            "anaphor_number_agreement": 0.71,
            "determiner_noun_agreement_1": 0.66,
            "wh_island": 0.44,
            "passive_1": 0.6,
            "npi_present_1": 0.51,
        },
    }
    files = {
        "hf": {
            "bytes": 17_104_882,
            "bits_per_byte": 1.7312,
            "runtime": "transformers",
            "scored_bytes": 402_110,
        },
        "model-q8_0.gguf": {
            "bytes": 4_900_128,
            "bits_per_byte": 1.7325,
            "runtime": "llama.cpp",
            "scored_bytes": 65_536,
        },
    }
    rows: list[tuple[str, str, str, Cost, Cost, dict[str, Any]]] = [
        ("data.read", "corpus", "fused", cost(0.31, 210), cost(0.42, 212), {"account": account["data.read"]}),
        (
            "data.filter",
            "corpus",
            "fused",
            cost(0.80, 210),
            cost(0.71, 212),
            {"account": account["data.filter"]},
        ),
        (
            "data.dedup",
            "corpus",
            "done",
            cost(0.25, 215),
            cost(0.22, 212),
            {"account": account["data.dedup"], "splits": splits},
        ),
        (
            "tokenizer.train",
            "tokenizer",
            "reused",
            cost(4.1, 380),
            Cost(seconds=0.0),
            {"vocab_size": 4096, "bytes_per_token": 3.05},
        ),
        (
            "tokenizer.encode",
            "tokens",
            "done",
            cost(1.9, 420),
            cost(2.3, 402),
            {"splits": tokens, "vocab_size": 4096},
        ),
        (
            "train.pretrain",
            "model",
            "done",
            cost(192, 1240),
            cost(193.4, 1188, tokens=4_833_280, flops=1.34e14),
            {"parameters": 4_212_480, "architecture": "qwen3", "context": 256, "spec": SPEC},
        ),
        (
            "evaluate",
            "scores",
            "done",
            cost(14, 700),
            cost(16.8, 688),
            {"bits_per_byte": bpb, "minimal_pairs": pairs, "samples": samples},
        ),
        ("export", "bundle", "done", cost(9.0, 520), cost(8.1, 540), {"files": files}),
    ]
    reasons = {
        "tokenizer.train": {"vocab_size": "9.6 MB of text and 4min: 4096 keeps 3.05 bytes a token"},
        "train.pretrain": {
            "model.parameters": "192 s at 128 GFLOP/s are 1.3e14 FLOP: 4.2 M see each token 1.5 times",
            "lr": "matrices 0.02 (Muon), from the width",
        },
    }
    settings = {
        "evaluate": {"example": HOSTILE},
        "tokenizer.train": {"vocab_size": 4096},
        "train.pretrain": {"model": {"family": "qwen3", "parameters": 4_212_480}, "lr": 0.02, "steps": 1180},
    }
    found = []
    for label, kind, status, forecast, spent, facts in rows:
        first = cost(4.4, 371) if status == "reused" else spent
        found.append(
            Receipt(
                key=next(made),
                label=label,
                stage=label,
                status=status,
                settings=settings.get(label, {}),
                reasons=reasons.get(label, {}),
                made=next(made) if status != "fused" else None,
                kind=kind,
                forecast=forecast,
                cost=spent,
                first_cost=first,
                facts=facts,
                seed=0 if label == "train.pretrain" else None,
                machine=MACHINE.model,
                versions={"kogata": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
                started="2026-11-24T04:31:07+00:00",
            )
        )
    return found


def write_run(folder: Path, *, failed: bool = False, rows: list[dict[str, Any]] | None = None) -> Path:
    """Writes the files a runner leaves; with `failed` the training ran out of memory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    lines = receipts()
    planned = [
        {
            "label": line.label,
            "stage": line.stage,
            "kind": line.kind,
            "settings": line.settings,
            "reasons": line.reasons,
            "forecast": (line.forecast or Cost()).to_dict(),
            "fused_into": None,
            "reused": line.status == "reused",
        }
        for line in lines
    ]
    plan = {
        "id": "a1b2c3d4e5f6",
        "recipe": {"name": "novels", "budget": {"time": "4min", "memory": "4GiB"}, "seed": 0},
        "machine": MACHINE.to_dict(),
        "shares": {"train.pretrain": 192.0},
        "steps": planned,
        "total": cost(240, 1240).to_dict(),
        "disk_bytes": 61_000_000,
        "verdict": "fits the budget",
        "source": "# mine\n",
    }
    (folder / "plan.json").write_text(json.dumps(plan, ensure_ascii=False), encoding="utf-8")
    if failed:
        reason = "the stage passed its memory budget\n  found: 4.3GiB\n  remedy: " + HOSTILE
        stopped = replace(lines[5], status="failed", made=None, facts={}, reason=reason, cost=cost(41, 4400))
        lines = [*lines[:5], stopped]
    with (folder / "receipts.jsonl").open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line.to_dict() | {"invocation": "f00d"}, ensure_ascii=False) + "\n")
        file.write('{"key": "cut by a ki')
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for row in metrics() if rows is None else rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    status = {"status": "failed" if failed else "done", "spent_seconds": 231.4, "invocation": "f00d"}
    (folder / "state.json").write_text(json.dumps(status), encoding="utf-8")
    return folder
