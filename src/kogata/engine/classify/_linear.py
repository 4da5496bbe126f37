"""Logistic regression over several labels: L-BFGS on dense or sparse rows, its strength by held-out rows.

Own code rather than scikit-learn, which would bring scipy too for this one solver; torch is here already.
Not yet measured against it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.engine.classify._costs import ENOUGH_ROWS

ITERATIONS = 100
BLOCK_ROWS = 64


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix [n, features] as compressed rows."""

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    features: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, rows: np.ndarray) -> SparseRows:
        """Gives some of the rows."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = np.repeat(self.starts[rows] - starts[:-1], sizes) + np.arange(starts[-1])
        return SparseRows(starts, self.columns[places], self.values[places], self.features)

    def products(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Gives multiplication by the matrix and by its transpose."""
        order = np.argsort(self.columns, kind="stable")
        rows = np.repeat(np.arange(len(self)), np.diff(self.starts))
        counts = np.bincount(self.columns, minlength=self.features)
        turned = np.concatenate([[0], np.cumsum(counts)])
        here = _csr(self.starts, self.columns, self.values, (len(self), self.features))
        there = _csr(turned, rows[order], self.values[order], (self.features, len(self)))
        return (lambda x: here @ x), (lambda x: there @ x)

    def block(self, start: int, stop: int) -> Tensor:
        """Gives some neighbouring rows as a dense matrix [rows, features]."""
        first, last = int(self.starts[start]), int(self.starts[stop])
        row = np.repeat(np.arange(stop - start), np.diff(self.starts[start : stop + 1]))
        found = np.zeros((stop - start, self.features), dtype=np.float32)
        found[row, self.columns[first:last]] = self.values[first:last]
        return torch.from_numpy(found)


Rows = Tensor | SparseRows


@dataclass(frozen=True)
class Logistic:
    """Weights [features, classes] and biases [classes]."""

    weight: Tensor
    bias: Tensor

    def logits(self, rows: Rows) -> Tensor:
        """Computes the scores [n, classes]."""
        times = rows.products()[0] if isinstance(rows, SparseRows) else (lambda w: rows @ w)
        return times(self.weight) + self.bias


def fit(
    rows: Rows, targets: Tensor, classes: int, strength: float, start: Logistic | None = None
) -> Logistic:
    """Minimises the summed cross-entropy plus |weight|² / (2 · strength); biases are free.

    Args:
        rows: one text a row.
        targets: labels by number [n].
        classes: how many labels there are.
        strength: large fits the rows more closely (the C of other libraries).
        start: where to begin.
    """
    n = len(rows)
    features = rows.features if isinstance(rows, SparseRows) else rows.shape[1]
    if isinstance(rows, SparseRows):
        times, back = rows.products()
    else:
        turned = rows.T.contiguous()
        times, back = (lambda w: rows @ w), (lambda g: turned @ g)
    weight = torch.zeros(features, classes) if start is None else start.weight.clone()
    bias = torch.zeros(classes) if start is None else start.bias.clone()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        history_size=8,
        tolerance_grad=1e-5,
        tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )
    places = torch.arange(n)
    pull = 1.0 / (strength * n)

    @torch.no_grad()
    def loss() -> Tensor:
        log_shares = F.log_softmax(times(weight) + bias, 1)
        value = -log_shares[places, targets].mean() + 0.5 * pull * (weight * weight).sum()
        slope = log_shares.exp_()
        slope[places, targets] -= 1.0
        slope /= n
        weight.grad = back(slope).add_(weight, alpha=pull)
        bias.grad = slope.sum(0)
        return value

    solver.step(loss)
    return Logistic(weight.detach(), bias.detach())


def compact(rows: SparseRows) -> tuple[Tensor, Tensor]:
    """Turns rows into coordinates of their own span, where fewer rows than features make a small problem.

    Weights of the least norm lie in the span of the rows, so a regression over the coordinates is the same
    regression; the eigenvectors of the rows' products give them.

    Returns:
        coordinates [n, r], and what turns weights over them [r, classes] back: rowsᵀ · back · weights.
    """
    times, n = rows.products()[0], len(rows)
    products = torch.empty(n, n)
    for start in range(0, n, BLOCK_ROWS):
        stop = min(n, start + BLOCK_ROWS)
        products[:, start:stop] = times(rows.block(start, stop).T.contiguous())
    sizes, vectors = torch.linalg.eigh(0.5 * (products + products.T).double())
    kept = sizes > 1e-6 * sizes[-1]
    length = sizes[kept].sqrt()
    return (vectors[:, kept] * length).float(), (vectors[:, kept] / length).float()


def tune(
    rows: Rows,
    targets: np.ndarray,
    classes: int,
    strengths: Sequence[float],
    seed: int,
    watch: Callable[[int, int], None] | None = None,
    groups: np.ndarray | None = None,
) -> tuple[float, dict[str, float]]:
    """Chooses the strength by cross-validation: the most rows right, ties by their log-likelihood.

    Where no row can be judged, as with one row a label, and of one strength, the middle one is taken.

    Returns:
        the strength, and each strength's share of rows right.
    """
    right = np.zeros(len(strengths))
    likely = np.zeros(len(strengths))
    parts = _parts(targets, seed, groups) if len(strengths) > 1 else []
    judged = sum(len(held) for _, held in parts)
    if not judged:
        return strengths[len(strengths) // 2], {}
    for number, (fitted, held) in enumerate(parts):
        some, others = _rows(rows, fitted), _rows(rows, held)
        there, truth = torch.from_numpy(targets[fitted]), torch.from_numpy(targets[held])
        found: Logistic | None = None
        for at, strength in enumerate(strengths):
            found = fit(some, there, classes, strength, found)
            logits = found.logits(others)
            right[at] += int((logits.argmax(1) == truth).sum())
            likely[at] -= float(F.cross_entropy(logits, truth, reduction="sum"))
            if watch is not None:
                watch(number * len(strengths) + at + 1, len(parts) * len(strengths))
    best = max(range(len(strengths)), key=lambda at: (right[at], likely[at]))
    shares = {f"{s:g}": round(float(r / judged), 6) for s, r in zip(strengths, right, strict=True)}
    return strengths[best], shares


def folds(
    targets: np.ndarray, count: int, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts rows into `count` folds with each label spread evenly; gives (rows to fit, rows to judge).

    Rows of one group stay together. What holds all rows of a label is never judged: a method that did not
    see the label could not know it.

    Args:
        targets: labels by number.
        count: how many folds.
        seed: decides the order in which groups are dealt out.
        groups: each row's group by number; by default every row is one of its own.
    """
    names = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(names, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(names))[:-1])
    by_label = [names[targets == label] for label in np.unique(targets)]
    alone = {int(mine[0]) for mine in by_label if (mine == mine[0]).all()}
    chance = np.random.default_rng([seed, len(targets)])
    start = int(chance.integers(count))
    mixed = sorted(chance.permutation(len(members)).tolist(), key=lambda group: -len(members[group]))
    held = np.zeros((count, int(targets.max()) + 1), dtype=np.int64)
    sizes = np.zeros(count, dtype=np.int64)
    place = np.full(len(targets), -1)
    for group in mixed:
        if group in alone:
            continue
        rows = members[group]
        # The fold with the fewest rows of these labels, then with the fewest rows, then in turn.
        mine = held[:, targets[rows]].sum(1)
        fold = min(range(count), key=lambda at: (mine[at], sizes[at], (at - start) % count))
        place[rows] = fold
        np.add.at(held[fold], targets[rows], 1)
        sizes[fold] += len(rows)
    found = [(np.flatnonzero(place != fold), np.flatnonzero(place == fold)) for fold in range(count)]
    return [(fitted, judged) for fitted, judged in found if len(judged)]


def _parts(targets: np.ndarray, seed: int, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(targets) > ENOUGH_ROWS:
        return folds(targets, 5, seed, groups)[:1]
    return folds(targets, 3, seed, groups)


def _rows(rows: Rows, which: np.ndarray) -> Rows:
    return rows.part(which) if isinstance(rows, SparseRows) else rows[torch.from_numpy(which)]


def _csr(starts: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # It says that such tensors are young.
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts.astype(np.int64)),
            torch.from_numpy(columns.astype(np.int64)),
            torch.from_numpy(values.astype(np.float32)),
            size=shape,
        )
