"""A trial of a choice: small models on what was chosen and on a random set of the same size, paired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogata.core.amounts import Budget
from kogata.core.errors import DataError
from kogata.core.recipe import Step, step_from_dict
from kogata.core.stage import Bench, Facts
from kogata.core.statistics import paired
from kogata.engine.select._pool import Pool, chance
from kogata.engine.text import read_corpus, utf8_length

HELDOUT_BYTES = 200_000
BYTES_PER_TOKEN = 3.5
ROOM = 1.5
"""Text that an arm reads, by what it is trained on."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a choice is tried."""

    seeds: int
    tokens: int
    parameters: int
    vocab_size: int


def try_out(trial: Trial, pool: Pool, kept: Any, bench: Bench) -> Facts:
    """Trains paired small models on equal tokens and gives their held-out bits per byte and a verdict.

    Both arms share tokenizer, size, tokens and seed; the control takes as many bytes of the pool by chance,
    anew for every seed.

    Raises:
        DataError: the corpus has no held-out text to judge on.
    """
    folder = bench.checkpoints / "trial"
    folder.mkdir(exist_ok=True)
    held = _heldout(pool.path, folder / "heldout.jsonl")
    size = int(pool.sizes[kept].sum())
    chosen: list[float] = []
    control: list[float] = []
    for number in range(trial.seeds):
        seed = bench.seed + number
        masks = {"chosen": kept, "random": _control(pool, size, 1000 + seed)}
        room = ROOM * BYTES_PER_TOKEN * trial.tokens
        files = {
            name: _some(pool, mask, room, seed, folder / f"{name}-{number}.jsonl")
            for name, mask in masks.items()
        }
        receipts = bench.run(_steps(trial, files, held), Budget(), seed)
        values = {
            receipt.label: receipt.facts["bits_per_byte"]["value"]
            for receipt in receipts
            if receipt.stage == "evaluate"
        }
        chosen.append(values["trial-chosen-score"])
        control.append(values["trial-random-score"])
        bench.log(f"trial, seed {seed}: {chosen[-1]:.4f} chosen, {control[-1]:.4f} random (bits per byte)")
    gap = paired(chosen, control)
    return {
        "seeds": [bench.seed + number for number in range(trial.seeds)],
        "tokens": trial.tokens,
        "parameters": trial.parameters,
        "chosen": chosen,
        "random": control,
        "difference": gap.to_dict(),
        "verdict": gap.verdict(lower_is_better=True),
    }


def _control(pool: Pool, size: int, seed: int) -> Any:
    """Says which rows a random choice of the same size takes."""
    from kogata.engine.select import random as control
    from kogata.engine.select._run import choose

    other = Pool(pool.path, pool.kind, seed=seed)
    return choose(control.scores(control.Settings(), other), other.sizes, size)


def _heldout(corpus: Path, path: Path) -> Path:
    size = 0
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for document in read_corpus(corpus, "heldout"):
            text = document.text[: HELDOUT_BYTES - size]
            size += utf8_length(text)
            file.write(json.dumps({"id": document.id, "text": text}, ensure_ascii=False) + "\n")
            if size >= HELDOUT_BYTES:
                break
    if not size:
        raise DataError(
            "no held-out text to judge a trial on",
            where="data.select, proxy",
            remedy="give data.read a `heldout` share or path, or leave `proxy` out",
        )
    return path


def _some(pool: Pool, mask: Any, room: float, seed: int, path: Path) -> Path:
    """Writes what an arm trains on: all of a choice, or a part by chance where it is more than enough."""
    share = min(1.0, room / max(1, int(pool.sizes[mask].sum())))
    draw = chance(seed, 11)
    with path.open("w", encoding="utf-8", errors="replace") as file:
        written = 0
        for at, item in enumerate(pool.items()):
            if mask[at] and (draw.random() < share or not written):
                written += 1
                file.write(json.dumps({"id": item.id, "text": item.text}, ensure_ascii=False) + "\n")
    return path


def _steps(trial: Trial, files: dict[str, Path], held: Path) -> list[Step]:
    rows: list[dict[str, Any]] = []
    for arm, path in files.items():
        rows.append(
            {
                "data.read": {
                    "as": f"trial-{arm}",
                    "kind": "corpus",
                    "path": str(path.resolve()),
                    "heldout": str(held.resolve()),
                }
            }
        )
    tokenizer = {"as": "trial-tokenizer", "vocab_size": trial.vocab_size, "use": {"corpus": "trial-random"}}
    rows.append({"tokenizer.train": tokenizer})
    for arm in files:
        name = f"trial-{arm}"
        use = {"corpus": name, "tokenizer": "trial-tokenizer"}
        model = {"parameters": trial.parameters}
        rows += [
            {"tokenizer.encode": {"as": f"{name}-tokens", "use": use}},
            {
                "train.pretrain": {
                    "as": f"{name}-model",
                    "use": {"tokens": f"{name}-tokens"},
                    "tokens": trial.tokens,
                    "model": model,
                }
            },
            {
                "evaluate": {
                    "as": f"{name}-score",
                    "use": {"model": f"{name}-model", "corpus": name},
                    "minimal_pairs": False,
                    "sample_tokens": 0,
                }
            },
        ]
    return [step_from_dict(row) for row in rows]
