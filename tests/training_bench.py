"""A bench, tokens and a toy decoder for tests of training: no runner, and a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.amounts import Budget
from kogata.core.artifact import Artifact, Kind
from kogata.core.receipt import Machine, Receipt
from kogata.core.recipe import Clock, Step
from kogata.core.stage import Share

NOVELS = {
    "vocab_size": 4096,
    "end_id": 0,
    "splits": {"train": {"documents": 50, "tokens": 8_000_000, "bytes": 29_000_000}},
}
"""Facts of a corpus of some fifty novels, encoded."""
MACHINE = Machine(cores=1, gemm_flops=80e9, gemm_small_flops=60e9, compiler=False)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it."""


class TrainingBench:
    """Keeps the rows; can ask to stop or kill at a step; `tick` is what a fake clock moves by each step."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        machine: Machine = MACHINE,
        seconds: float | None = None,
        tick: float | None = None,
        stop_at: int | None = None,
        kill_at: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.out, self.checkpoints = folder / "out", folder / "checkpoints"
        self.out.mkdir(parents=True, exist_ok=True)
        self.label, self.seed, self.device, self.machine = "train.pretrain", seed, "cpu", machine
        self.share = Share(seconds=seconds, processes=world)
        self.time, self.tick = 0.0, tick
        now = (lambda: self.time) if tick is not None else None
        deadline = seconds if tick is not None else None
        self.clock = Clock(deadline, now) if now else Clock(deadline)
        self.rank, self.world = rank, world
        self.stop_at, self.kill_at = stop_at, kill_at
        self.rows: list[dict[str, Any]] = []
        self.logs: list[str] = []
        self.tokens, self.flops = 0, 0.0

    def left(self) -> float | None:
        return self.clock.left()

    def stopping(self) -> bool:
        step = self.rows[-1]["step"] if self.rows else 0
        if self.kill_at is not None and step >= self.kill_at:
            raise Killed
        return self.stop_at is not None and step >= self.stop_at

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        if self.tick is not None:
            self.time += self.tick

    def metric(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def log(self, text: str) -> None:
        self.logs.append(text)

    def count(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        self.tokens += tokens or 0
        self.flops += flops or 0.0

    def run(self, steps: Sequence[Step], budget: Budget, seed: int) -> list[Receipt]:
        raise AssertionError("training runs no nested steps")


def make_tokens(folder: Path, vocab_size: int = 61, documents: int = 12, length: int = 300) -> Artifact:
    """Writes a tokens artifact of a language in which each id is nearly always followed by the same one."""
    chance = np.random.default_rng(7)
    facts: dict[str, Any] = {
        "vocab_size": vocab_size,
        "end_id": 0,
        "tokenizer_digest": "none",
        "dtype": "uint16",
        "splits": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", documents), ("heldout", 2)):
        texts = []
        for _ in range(count):
            ids = [int(chance.integers(1, vocab_size))]
            for _ in range(length - 2):
                follows = 1 + (ids[-1] * 7 + 3) % (vocab_size - 1)
                ids.append(follows if chance.random() < 0.9 else int(chance.integers(1, vocab_size)))
            texts.append([*ids, 0])
        flat = np.array([i for text in texts for i in text], dtype="<u2")
        flat.tofile(folder / f"{split}-00000.bin")
        offsets = np.cumsum([0, *map(len, texts)]).astype("<u8")
        np.save(folder / f"{split}-00000.idx.npy", offsets, allow_pickle=False)
        facts["splits"][split] = {"documents": count, "tokens": len(flat), "bytes": 3 * len(flat)}
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}}))
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    return Artifact(kind=Kind.TOKENS, digest="tokens", path=folder, facts=facts)


def stages(steps: int, **train: Any) -> list[dict[str, Any]]:
    """Gives the stages of a recipe that trains a small model on Shakespeare."""
    shape = {"family": "qwen3", "layers": 2, "width": 64, "heads": 2}
    # A store of its own measures the computer anew, and `auto` may then choose other products.
    train = {"precision": "fp32", **train}
    return [
        {
            "data.read": {
                "path": str(Path(__file__).resolve().parents[1] / "examples/data/shakespeare/input.txt.gz"),
                "heldout": {"tail": 0.1},
            }
        },
        {"tokenizer.train": {"vocab_size": 512}},
        {"tokenizer.encode": {}},
        {"train.pretrain": {"model": shape, "steps": steps, "batch": 1024, "context": 128, **train}},
    ]
