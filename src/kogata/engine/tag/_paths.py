"""The likeliest classes of a row's units that make sense together: no I- without its beginning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kogata.engine.tag._task import Scheme

TOGETHER = 128
"""Rows of like length whose paths are found at once."""
NEVER = -1e9


def best_paths(logs: Sequence[np.ndarray], scheme: Scheme) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gives each row's likeliest classes and their probabilities.

    Args:
        logs: log-probabilities of the classes, [units, classes] each.
        scheme: the classes; of IOB2 a row of classes in which I- goes on without B- has no chance (Viterbi).

    Returns:
        (classes int64 [units], probabilities float64 [units]) of each row.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0))] * len(logs)
    order = sorted((at for at in range(len(logs)) if len(logs[at])), key=lambda at: len(logs[at]))
    for start in range(0, len(order), TOGETHER):
        some = order[start : start + TOGETHER]
        if scheme.plain:
            paths = [logs[at].argmax(1) for at in some]
        else:
            paths = _viterbi([logs[at] for at in some], len(scheme.labels))
        for at, path in zip(some, paths, strict=True):
            found[at] = (path, np.exp(logs[at][np.arange(len(path)), path]))
    return found


def _viterbi(logs: Sequence[np.ndarray], labels: int) -> list[np.ndarray]:
    classes = 1 + 2 * labels
    sizes = [len(row) for row in logs]
    longest = max(sizes)
    filled = np.zeros((len(logs), longest, classes))
    for at, row in enumerate(logs):
        filled[at, : len(row)] = row
    inside = 2 + 2 * np.arange(labels)
    into = np.zeros((classes, classes))
    into[:, inside] = NEVER
    into[inside, inside] = into[inside - 1, inside] = 0.0
    best = filled[:, 0].copy()
    best[:, inside] += NEVER
    came = np.zeros((len(logs), longest, classes), dtype=np.int32)
    ends = [best]
    for step in range(1, longest):
        ways = best[:, :, None] + into
        came[:, step] = ways.argmax(1)
        best = ways.max(1) + filled[:, step]
        ends.append(best)
    found = []
    for at, size in enumerate(sizes):
        path = np.zeros(size, dtype=np.int64)
        path[-1] = ends[size - 1][at].argmax()
        for step in range(size - 1, 0, -1):
            path[step - 1] = came[at, step, path[step]]
        found.append(path)
    return found
