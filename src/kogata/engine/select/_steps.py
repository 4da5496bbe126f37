"""What selectors do with many texts at once, by any process; what they found is kept as it goes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from kogata.engine.ngrams import units_of
from kogata.engine.pool import Unlimited
from kogata.engine.select._features import buckets_of, sums_of

Arrays = tuple[np.ndarray, ...]


class Step(Protocol):
    """Gives arrays for a group of texts; depends on nothing but them and its own fields."""

    def __call__(self, texts: Any, /) -> Arrays:
        """Works on the texts."""
        ...


@dataclass(frozen=True)
class Counting:
    """Counts buckets over all texts: which occur, how often."""

    buckets: int
    ngram: int | None = None
    """Longest run counted; None: words, or characters, alone."""

    def __call__(self, texts: Sequence[str]) -> Arrays:
        """Works on the texts."""
        counts = np.bincount(self.found(texts)[0], minlength=self.buckets)
        (which,) = np.nonzero(counts)
        return which.astype(np.int32), counts[which].astype(np.int32)

    def found(self, texts: Sequence[str]) -> Arrays:
        """Gives the buckets, text after text, and where each text's begin."""
        if self.ngram is not None:
            return buckets_of(texts, self.ngram, self.buckets)
        units, starts = units_of(texts)
        return (units % np.uint64(self.buckets)).astype(np.int64), starts


@dataclass(frozen=True)
class Adding(Counting):
    """Adds up a value for each bucket: the sum of each text, that of the squares, and how many there were."""

    values: np.ndarray | None = None

    def __call__(self, texts: Sequence[str]) -> Arrays:
        """Works on the texts."""
        assert self.values is not None
        buckets, starts = self.found(texts)
        values = self.values[buckets]
        return sums_of(values, starts), sums_of(values**2, starts), np.diff(starts)


def counted(found: Any, buckets: int) -> np.ndarray:
    """Adds up what `Counting` gave of all groups."""
    total = np.zeros(buckets, dtype=np.int64)
    for which, counts in found:
        total[which] += counts
    return total


def joined(found: Any, arrays: int) -> list[np.ndarray]:
    """Puts what a step gave of all groups together, array by array."""
    parts: list[list[np.ndarray]] = [[np.zeros(0)] for _ in range(arrays)]
    for made in found:
        for part, array in zip(parts, made, strict=True):
            part.append(array)
    return [np.concatenate(part) for part in parts]


@dataclass(frozen=True)
class Stepwise(Unlimited):
    """A step as work that can be sent elsewhere and written down."""

    step: Any
    stage: ClassVar[str] = "data.select"

    def start(self) -> Callable[[Sequence[str]], Arrays]:
        """Gives the step."""
        return self.step

    def digest(self, group: Sequence[Any]) -> int:
        """Gives a number that other texts, or other items, have not."""
        import xxhash

        made = xxhash.xxh3_64()
        for item in group:
            text = item if isinstance(item, str) else item.text
            made.update(text.encode("utf-8", "surrogatepass"))
            made.update(b"\0")
        return made.intdigest()

    def size(self, arrays: Arrays) -> int:
        """Gives the characters of its row, about."""
        return sum(array.nbytes * 4 // 3 for array in arrays)

    def row(self, arrays: Arrays) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {
            "arrays": [
                [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode("ascii")]
                for array in arrays
            ]
        }

    def outcome(self, row: dict[str, Any]) -> Arrays:
        """Gives what `row` was made of."""
        return tuple(
            np.frombuffer(base64.b64decode(packed), dtype=kind).reshape(shape)
            for kind, shape, packed in row["arrays"]
        )
