"""Near copies: rows whose texts share four fifths of their five-character pieces, and those across splits.

Pieces are compared by MinHash (64 minima, 16 bands) and counted exactly where the sketches agree, so any
language will do.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kogata.engine.check._common import SHOWN, Examined, Finding, clip, of_rows

CHEAP, NEEDS = False, None

PIECE = 5
ALIKE = 0.8
"""Share of pieces two rows have in common, of all pieces of both."""
MINIMA, BANDS = 64, 16
SHORTEST = 20
"""Characters below which rows are alike by chance."""
LONGEST = 20_000
"""Characters of a row that are looked at."""
COMPARED = 8
"""Rows of one band that are compared exactly, the earliest: training rows, which come first."""

Pair = tuple[int, int, float]
"""A row, the earlier row most like it, and the share they have in common."""


def check(examined: Examined) -> list[Finding]:
    """Joins rows that are near copies; exact copies are another check's."""
    pairs = _pairs(examined)
    across = [pair for pair in pairs if examined.examples[pair[0]][0] != examined.examples[pair[1]][0]]
    within = [pair for pair in pairs if examined.examples[pair[0]][0] == examined.examples[pair[1]][0]]
    found = []
    if across:
        held = sum(split != "train" for split, _ in examined.examples)
        found.append(
            Finding(
                check="near_duplicates",
                name="leaks between splits",
                level="warning",
                what=of_rows(
                    len(across), "is nearly a copy", "are nearly copies", whole=held, kind="set-apart row"
                )
                + " of a row in another split",
                remedy="keep one of each, or name the column that rows of one kind share (group: …): "
                "such rows flatter every score",
                count=len(across),
                rows=_rows(examined, across),
            )
        )
    if within:
        total = len(examined.examples)
        found.append(
            Finding(
                check="near_duplicates",
                name="near_duplicates",
                level="warning",
                what=of_rows(len(within), "is nearly a copy", "are nearly copies", whole=total)
                + " of an earlier one",
                remedy="keep one of each: what is repeated is learned by heart",
                count=len(within),
                rows=_rows(examined, within),
            )
        )
    return found


def _pairs(examined: Examined) -> list[Pair]:
    random = np.random.default_rng(0)
    odd = random.integers(0, 2**63, MINIMA, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    sets: dict[int, np.ndarray] = {}
    firsts: set[str] = set()
    pairs: list[Pair] = []
    for number, (question, answer) in enumerate(examined.normal):
        # Of a labelled row the text alone: one text under two labels is a contradiction, not a copy.
        text = question if examined.examples[number][1].form in ("label", "tags") else f"{question}\n{answer}"
        if len(text) < SHORTEST or text in firsts:
            continue
        firsts.add(text)
        sets[number] = mine = _pieces(text)
        sketch = (mine[:, None] * odd[None, :]).min(axis=0).reshape(BANDS, -1)
        seen: dict[int, float] = {}
        for band in range(BANDS):
            bucket = buckets[band, sketch[band].tobytes()]
            for other in bucket[:COMPARED]:
                if other not in seen:
                    seen[other] = _alike(mine, sets[other])
            bucket.append(number)
        split = examined.examples[number][0]
        # A like row in another split is told first: it is a leak.
        ranked = [(examined.examples[o][0] != split, s, -o) for o, s in seen.items() if s >= ALIKE]
        if ranked:
            _, share, other = max(ranked)
            pairs.append((number, -other, share))
    return pairs


def _pieces(text: str) -> np.ndarray:
    """Hashes every piece of a text, each once."""
    codes = np.frombuffer(text[:LONGEST].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    count = len(codes) - PIECE + 1
    total = np.zeros(count, dtype=np.uint64)
    for place in range(PIECE):
        total = total * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + count]
    total ^= total >> np.uint64(29)
    return np.unique(total * np.uint64(0xBF58476D1CE4E5B9))


def _rows(examined: Examined, pairs: list[Pair]) -> list[dict]:
    rows = []
    for number, other, alike in pairs[:SHOWN]:
        (split, example), (other_split, earlier) = examined.examples[number], examined.examples[other]
        rows.append(
            {
                "source": example.source,
                "split": split,
                "found": clip(example.question() or example.answer()),
                "same_as": earlier.source,
                "same_as_split": other_split,
                "alike": round(alike, 3),
            }
        )
    return rows


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / max(1, len(first) + len(second) - common)
