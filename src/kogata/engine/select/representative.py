"""Representatives: what lies near the target or, without one, what together is like the whole pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from kogata.core.errors import DataError
from kogata.core.variants import VariantSettings
from kogata.engine.select._features import buckets_of
from kogata.engine.select._pool import Pool, chance, grouped, pieces_of
from kogata.engine.select._steps import Arrays

NEEDS: frozenset[str] = frozenset()
SPREADS = True
"""Several processes can score."""
STEP_BYTES = 20 * 2**20
"""What each of them holds."""
BYTES_PER_SECOND = 6e6
BUCKETS = 2**15
WIDTH = 128
"""Numbers of a document's vector, where no model gives it."""
MOST_TARGETS = 512
CLIENTS = 2_000
"""Documents that stand for the pool when coverage is measured."""
LOOKED_AT = 64
"""Documents looked at before the best is taken."""


class Settings(VariantSettings):
    """Keeps what lies nearest to the target's texts; without a target, what covers the pool best.

    A vector for each document: the mean of a model's last states (later ones weigh more) where `model` is
    given, else its words, the rare ones more, projected to 128 numbers. With a target its texts choose in
    turn, each its nearest (Ivison et al. 2025). Without one: `coverage` takes what makes the pool most
    similar to what was taken (facility location), `spread` what lies farthest from it (k-center, which also
    finds junk).
    """

    without_target: Literal["coverage", "spread"] = Field(
        default="coverage", description="how the pool is covered where no target is given"
    )
    context: int = Field(
        default=256, ge=16, description="tokens of a document that a model looks at, where one is given"
    )


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives minus the place in the order of choice; what was not reached goes by chance."""
    embed = _by_model(settings, pool) if pool.model is not None else _by_words(pool)
    vectors = [made for (made,) in pool.mapped(_Placing(embed), here=pool.model is not None)]
    points = np.concatenate([np.zeros((0, vectors[0].shape[1]), dtype=np.float32), *vectors])
    if pool.target:
        pieces = [piece for text in pool.target for piece in pieces_of(text)]
        chosen = chance(pool.seed, 5).permutation(len(pieces))[:MOST_TARGETS]
        targets = np.concatenate([embed(group) for group in grouped([pieces[at] for at in sorted(chosen)])])
        return _nearest(points, targets)
    order = _covering(points, pool) if settings.without_target == "coverage" else _spread(points, pool)
    found = -2.0 - chance(pool.seed, 6).random(len(points))
    found[order] = -np.arange(len(order)) / max(1, len(order))
    return found


def _nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Lets the targets choose in turn: the best place a document has in any target's list, then nearness."""
    best = np.full(len(points), np.inf)
    near = np.full(len(points), -np.inf)
    for target in targets:
        likeness = points @ target
        place = np.empty(len(points))
        place[np.argsort(-likeness, kind="stable")] = np.arange(len(points))
        np.minimum(best, place, out=best)
        np.maximum(near, likeness, out=near)
    return -best + 0.49 * near


def _covering(points: np.ndarray, pool: Pool) -> np.ndarray:
    """Takes what adds most likeness to the pool, of some documents looked at by chance, again and again."""
    draw = chance(pool.seed, 7)
    clients = points[draw.permutation(len(points))[:CLIENTS]]
    covered = np.zeros(len(clients), dtype=np.float32)
    left, taken, size = list(draw.permutation(len(points))), [], 0
    while left and size < pool.limit_bytes:
        if not len(taken) % 64:
            pool.tick()
        some = left[-LOOKED_AT:]
        gains = np.maximum(points[some] @ clients.T - covered, 0).sum(axis=1)
        at = len(left) - len(some) + int(np.argmax(gains))
        row = left[at]
        covered = np.maximum(covered, clients @ points[row])
        taken.append(row)
        size += int(pool.sizes[row])
        # What was looked at in vain goes back to a place by chance, so that all have their turn.
        left[at] = left[-1]
        left.pop()
        for place in range(max(0, len(left) - LOOKED_AT), len(left)):
            other = int(draw.integers(len(left)))
            left[place], left[other] = left[other], left[place]
    return np.array(taken, dtype=np.int64)


def _spread(points: np.ndarray, pool: Pool) -> np.ndarray:
    """Takes the document farthest from all taken, again and again (k-center)."""
    row = int(chance(pool.seed, 8).integers(len(points)))
    nearest = np.full(len(points), -np.inf)
    taken, size = [], 0
    while size < pool.limit_bytes and len(taken) < len(points):
        if not len(taken) % 64:
            pool.tick()
        taken.append(row)
        size += int(pool.sizes[row])
        nearest = np.maximum(nearest, points @ points[row])
        nearest[row] = np.inf
        row = int(np.argmin(nearest))
    return np.array(taken, dtype=np.int64)


@dataclass(frozen=True)
class _Placing:
    """Gives the vectors of texts."""

    embed: Callable[[Sequence[str]], np.ndarray]

    def __call__(self, texts: Sequence[str]) -> Arrays:
        """Works on the texts."""
        return (self.embed(texts),)


@dataclass(frozen=True)
class _Seeing:
    """Counts in how many texts each bucket stands, and the texts."""

    def __call__(self, texts: Sequence[str]) -> Arrays:
        """Works on the texts."""
        seen = np.zeros(BUCKETS, dtype=np.int64)
        for buckets in _rows(texts):
            seen[np.unique(buckets)] += 1
        return seen, np.array([len(texts)])


@dataclass(frozen=True)
class _Words:
    """Makes vectors of texts' words, those that stand in few documents the more."""

    plane: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Works on the texts."""
        found = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for at, buckets in enumerate(_rows(texts)):
            if len(buckets):
                words, times = np.unique(buckets, return_counts=True)
                found[at] = np.log1p(times).astype(np.float32) @ self.plane[words]
        return _unit(found)


def _by_words(pool: Pool) -> Callable[[Sequence[str]], np.ndarray]:
    """Counts in how many documents each word stands; gives the function that makes vectors."""
    seen = np.zeros(BUCKETS, dtype=np.int64)
    count = 0
    for found, texts in pool.mapped(_Seeing()):
        seen += found
        count += int(texts[0])
    rare = np.log((count + 1) / (seen + 1)).astype(np.float32)
    return _Words(chance(9, 9).standard_normal((BUCKETS, WIDTH), dtype=np.float32) * rare[:, None])


def _rows(texts: Sequence[str]) -> Iterator[np.ndarray]:
    buckets, starts = buckets_of(texts, 1, BUCKETS)
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        yield buckets[begin:end]


def _by_model(settings: Settings, pool: Pool) -> Callable[[Sequence[str]], np.ndarray]:
    """Loads the model; gives the function that makes vectors of its last states, later ones weighing more."""
    import torch

    from kogata.engine.load import load_model

    assert pool.model is not None
    loaded = load_model(pool.model)
    if not hasattr(loaded.decoder, "hidden"):
        raise DataError(
            "the model gives no states",
            where="data.select, slot model",
            found="a text encoder",
            expected="a causal language model",
        )
    context = min(settings.context, loaded.context or settings.context)

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> np.ndarray:
        found = []
        for text in texts:
            ids = loaded.encode(text[: 12 * context])[:context] or [loaded.end_id or 0]
            states = loaded.decoder.hidden(torch.tensor([ids]))[0].float()
            weights = torch.arange(1, len(ids) + 1, dtype=torch.float32)
            found.append((weights @ states / weights.sum()).numpy())
            pool.count(tokens=len(ids))
        return _unit(np.stack(found))

    return embed


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(1e-9, np.linalg.norm(vectors, axis=1, keepdims=True))
