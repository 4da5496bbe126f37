"""Near copies: rows whose texts share four fifths of their five-character pieces.

Pieces are compared by MinHash (64 minima, 16 bands) and counted exactly where the sketches agree, so any
language will do.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kogata.engine.check._common import Examined, Finding, clip, percent

CHEAP, NEEDS_MODEL = False, False

PIECE = 5
ALIKE = 0.8
"""Share of pieces two rows have in common, of all pieces of both."""
MINIMA, BANDS = 64, 16
SHORTEST = 20
"""Characters below which rows are alike by chance."""
LONGEST = 20_000
"""Characters of a row that are looked at."""


def pieces(text: str) -> np.ndarray:
    """Hashes every piece of a text, each once."""
    codes = np.frombuffer(text[:LONGEST].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    count = len(codes) - PIECE + 1
    total = np.zeros(count, dtype=np.uint64)
    for place in range(PIECE):
        total = total * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + count]
    total ^= total >> np.uint64(29)
    return np.unique(total * np.uint64(0xBF58476D1CE4E5B9))


def check(examined: Examined) -> list[Finding]:
    """Joins rows that are near copies; exact copies are another check's."""
    random = np.random.default_rng(0)
    odd = random.integers(0, 2**63, MINIMA, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    sets: dict[int, np.ndarray] = {}
    firsts: dict[str, int] = {}
    pairs: list[tuple[int, int, float]] = []
    for number, (question, answer) in enumerate(examined.normal):
        text = f"{question}\n{answer}"
        if len(text) < SHORTEST or text in firsts:
            continue
        firsts[text] = number
        sets[number] = mine = pieces(text)
        sketch = (mine[:, None] * odd[None, :]).min(axis=0).reshape(BANDS, -1)
        best: tuple[float, int] = (0.0, -1)
        for band in range(BANDS):
            bucket = buckets[band, sketch[band].tobytes()]
            for other in bucket[:4]:
                if other != best[1]:
                    best = max(best, (_alike(mine, sets[other]), other))
            bucket.append(number)
        if best[0] >= ALIKE:
            pairs.append((number, best[1], best[0]))
    if not pairs:
        return []
    total = len(examined.examples)
    rows = [
        {
            "source": examined.examples[number][1].source,
            "found": clip(examined.examples[number][1].answer()),
            "same_as": examined.examples[other][1].source,
            "alike": round(alike, 3),
        }
        for number, other, alike in pairs[:20]
    ]
    return [
        Finding(
            check="near_duplicates",
            name="near_duplicates",
            level="warning",
            what=f"{len(pairs):,} rows ({percent(len(pairs), total)}) are nearly copies of an earlier one",
            remedy="keep one of each: near copies across splits flatter the held-out loss",
            count=len(pairs),
            rows=rows,
        )
    ]


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / max(1, len(first) + len(second) - common)
