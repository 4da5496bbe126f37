"""A language model of bytes in numpy: counts after the last five bytes, smoothed by those after fewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

ORDER = 6
"""Bytes of the longest run counted: five, and the one they are followed by."""
TABLE = 2**21
PULL = 4.0
"""How many sightings the shorter context's prediction counts for."""
_BASE = 0x9E3779B97F4A7C15


class NgramModel:
    """Counts runs of bytes, hashed into tables of 2²¹; 100 MB."""

    def __init__(self) -> None:
        self._runs = [np.zeros(TABLE, dtype=np.uint32) for _ in range(ORDER)]
        self._contexts = [np.zeros(TABLE, dtype=np.uint32) for _ in range(ORDER)]

    def learn(self, groups: Iterable[Sequence[str]]) -> None:
        """Counts the runs of texts."""
        for texts in groups:
            data, _ = _joined(texts)
            for order, (runs, contexts) in enumerate(_places(data)):
                self._runs[order] += np.bincount(runs, minlength=TABLE).astype(np.uint32)
                self._contexts[order] += np.bincount(contexts, minlength=TABLE).astype(np.uint32)

    def bits(self, texts: Sequence[str]) -> np.ndarray:
        """Computes the mean bits per byte of each text; infinite for an empty one."""
        data, ends = _joined(texts)
        chance = np.full(len(data), 1 / 256)
        for order, (runs, contexts) in enumerate(_places(data)):
            seen = self._contexts[order][contexts].astype(np.float64)
            chance = (self._runs[order][runs] + PULL * chance) / (
                np.maximum(seen, self._runs[order][runs]) + PULL
            )
        total = np.concatenate([[0.0], np.cumsum(-np.log2(chance))])
        starts = np.concatenate([[0], ends[:-1]])
        sizes = ends - starts - 1
        # The byte between texts is no text.
        sums = total[ends - 1] - total[starts]
        return np.where(sizes > 0, sums / np.maximum(1, sizes), np.inf)


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Gives the bytes of texts, each ended by a zero, and where each ends."""
    parts = [text.encode("utf-8", "surrogatepass") + b"\0" for text in texts]
    ends = np.cumsum([len(part) for part in parts])
    return np.frombuffer(b"".join(parts), dtype=np.uint8), ends


def _places(data: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yields, for each length of context, where runs and contexts are counted."""
    wide = data.astype(np.uint64) + np.uint64(1)
    context = np.zeros(len(data), dtype=np.uint64)
    for length in range(ORDER):
        if length:
            context[length:] += wide[:-length] * np.uint64(pow(_BASE, length, 2**64))
        mixed = context ^ (context >> np.uint64(29))
        yield _spread(mixed + wide * np.uint64(0xD6E8FEB86659FD93)), _spread(mixed)


def _spread(values: np.ndarray) -> np.ndarray:
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    return (values >> np.uint64(64 - 21)).astype(np.int64)
