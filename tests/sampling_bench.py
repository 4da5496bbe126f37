"""Tokens of several sources and a loop without a model, for tests of samplers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kogata.engine.sampler import Learner, Sampler
from kogata.engine.sampling import Curriculum, Sampling, make_sampler
from kogata.engine.supply import Supply
from kogata.engine.tokens import TokenStore

VOCAB = 97
NAMES = ["novels", "物語", "manuals"]


def make_supply(
    lengths: list[int] | None = None, *, context: int = 16, batch: int = 128, seed: int = 0, **more: Any
) -> Supply:
    """Makes tokens: document d is of source d % 3 and draws from the first 5 + 4 (d % 20) ids."""
    chance = np.random.default_rng(5)
    sizes: list[int] = lengths or chance.integers(5, 90, 60).tolist()
    texts = [
        np.append(chance.integers(1, 6 + 4 * (number % 20), length - 1), 0)
        for number, length in enumerate(sizes)
    ]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u8")
    sources = np.arange(len(texts)) % 3
    columns = np.array([[number % 20] for number in range(len(texts))], dtype="<f4")
    store = TokenStore(np.concatenate(texts).astype("<u2"), offsets, sources.astype("<u2"), columns)
    counts = [int(np.diff(offsets.astype(np.int64))[sources == i].sum()) for i in range(3)]
    facts = {
        "vocab_size": VOCAB,
        "end_id": 0,
        "sources": {name: {"tokens": n} for name, n in zip(NAMES, counts, strict=True)},
        "columns": ["grade"],
    }
    parts = {"store": store, "folder": Path("none"), "facts": facts, "micro": 48}
    return Supply(**{**parts, "context": context, "batch": batch, "seed": seed, **more})


def make(supply: Supply, curriculum: Any = "full_length", sampling: Any = "proportional") -> Sampler:
    """Makes a sampler as training does."""
    return make_sampler(supply, Curriculum.model_validate(curriculum), Sampling.model_validate(sampling))


def loss_of(row: np.ndarray, step: int) -> float:
    """Stands for a row's loss: high where ids are large, falling with time."""
    return float(row.mean() / 20 * (1 - step / 1000))


def walk(
    samplers: list[Sampler], steps: int, total: int, first: int = 0, *, most: int = 48
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Takes steps as several processes; gives each step's rows, weights behind the ids, and what it tells."""
    found: list[np.ndarray] = []
    told: list[dict[str, Any]] = []
    world = len(samplers)
    for step in range(first, first + steps):
        rows, seen, count = [], [], 0.0
        for rank, sampler in enumerate(samplers):
            batch = sampler.take(rank, world, step / total)
            count = batch.count
            mine = 0
            for part in batch.parts:
                pieces = np.concatenate([part.inputs.numpy(), part.targets.numpy()[:, -1:]], 1)
                weights = np.ones(part.targets.shape) if part.weights is None else part.weights.numpy()
                losses = [loss_of(piece, step) for piece in pieces]
                if part.weigh is not None:
                    import torch

                    weights = weights * part.weigh(torch.tensor(losses)).numpy()[:, None]
                assert len(pieces) * part.targets.shape[1] <= most or len(pieces) == 1
                rows.append(np.concatenate([pieces, weights], 1))
                if batch.rows:
                    assert part.losses is not None and part.losses.shape == part.targets.shape
                    seen += losses
                mine += len(pieces)
            assert not batch.rows or batch.first + mine <= batch.rows
        whole = np.concatenate(rows)
        found.append(whole)
        half = whole.shape[1] // 2 + 1
        if not seen:
            assert count == whole[:, half:].sum() > 0
        for sampler in samplers:
            if isinstance(sampler, Learner):
                if seen:
                    sampler.learn(seen)
                json.dumps(sampler.row())
        told.append(samplers[0].row() if isinstance(samplers[0], Learner) else {})
    return found, told


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Says whether two walks saw the same."""
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
