"""Units of text as numbers, many texts at a time: words, or characters of scripts that set no spaces.

Nothing here depends on the process: the same text gives the same numbers everywhere and always.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint64]]

_PRIME = 0x9E3779B97F4A7C15 | 1
_LAST = 0x2FFFF
"""Characters above are treated as this one: a Chinese character."""
_ALONE = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x3029), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, _LAST),
)  # fmt: skip
"""Scripts without spaces: each letter is a unit of its own."""
_PIECE = 2**20
"""Characters treated at once."""


def mix(values: Words) -> Words:
    """Spreads every bit of a number over all bits of another, one to one (splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _classes() -> np.ndarray:
    """Says of each character: 0 parts units, 1 is part of a word, 2 is a unit of its own."""
    found = np.zeros(_LAST + 1, dtype=np.uint8)
    for code in range(0x2E80):
        char = chr(code)
        found[code] = char.isalnum() or unicodedata.category(char)[0] == "M"
    for low, high in ((0x2E80, 0xD7FF), (0xF900, 0xFFFF), (0x10000, 0x1FFFF)):
        for code in range(low, high + 1):
            found[code] = chr(code).isalnum()
    for low, high in _ALONE:
        part = found[low : high + 1]
        marks = np.array([unicodedata.category(chr(code))[0] in "LNM" for code in range(low, high + 1)])
        part[:] = np.where(marks, 2, 0)
    found[_LAST] = 2
    return found


@cache
def _powers(count: int) -> tuple[Words, Words]:
    inverse = pow(_PRIME, -1, 2**64)
    found = []
    for base in (_PRIME, inverse):
        steps = np.full(count, base, dtype=np.uint64)
        steps[0] = 1
        found.append(np.cumprod(steps))
    return found[0], found[1]


def normalised(text: str) -> str:
    """Gives a text in the form that is compared: NFKC, lower case."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.lower()


def units_of(texts: Sequence[str]) -> tuple[Words, np.ndarray]:
    """Numbers the units of texts: words, and single characters of Japanese, Chinese, Thai and the like.

    Case, width, Unicode form and everything between units do not count.

    Returns:
        A number per unit, and where each text's begin (int64, texts + 1).
    """
    found: list[Words] = []
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    group: list[str] = []
    first = size = 0
    for at, text in enumerate(texts):
        text = normalised(text)
        if size + len(text) > _PIECE and group:
            found.append(_of_group(group, bounds, first))
            group, first, size = [], at, 0
        group.append(text)
        size += len(text) + 1
    if group:
        found.append(_of_group(group, bounds, first))
    np.cumsum(bounds, out=bounds)
    return (np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)), bounds


def _of_group(group: list[str], bounds: np.ndarray, first: int) -> Words:
    """Numbers one group's units and counts each text's in `bounds`."""
    if len(group) == 1 and len(group[0]) > _PIECE:
        pieces = _cut(group[0])
        found = [_units(piece)[0] for piece in pieces]
        units = np.concatenate(found)
        bounds[first + 1] = len(units)
        return units
    units, starts = _units("\n".join(group))
    ends = np.cumsum([len(text) + 1 for text in group])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    bounds[first + 1 : first + 1 + len(group)] = counts
    return units


def _cut(text: str) -> list[str]:
    """Cuts a long text between words where it can."""
    pieces, start = [], 0
    while start < len(text):
        end = min(len(text), start + _PIECE)
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = space + 1 if space > start else end
        pieces.append(text[start:end])
        start = end
    return pieces


def _units(text: str) -> tuple[Words, np.ndarray]:
    """Numbers the units of one string; gives also where each begins, in characters."""
    if text.isascii():
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    else:
        wide = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4")
        codes = np.minimum(wide, np.uint32(_LAST))
    if not len(codes):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    kinds = _classes()[codes]
    before = np.zeros_like(kinds)
    before[1:] = kinds[:-1]
    begins = (kinds == 2) | ((kinds == 1) & (before != 1))
    after = np.zeros_like(kinds)
    after[:-1] = kinds[1:]
    ends = (kinds == 2) | ((kinds == 1) & (after != 1))
    starts = np.flatnonzero(begins)
    stops = np.flatnonzero(ends) + 1
    powers, inverses = _powers(_PIECE + 2**16 if len(codes) <= _PIECE + 2**16 else len(codes))
    total = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers[: len(codes)], out=total[1:])
    units = (total[stops] - total[starts]) * inverses[starts]
    return mix(units), starts


def runs_of(units: Words, bounds: np.ndarray, length: int) -> tuple[Words, np.ndarray]:
    """Numbers each run of `length` units within a text; a shorter text is one run of what it has.

    Returns:
        A number per run, in order, and where each text's begin.
    """
    counts = np.diff(bounds)
    runs = np.maximum(counts - length + 1, (counts > 0).astype(np.int64))
    starts = np.zeros(len(bounds), dtype=np.int64)
    np.cumsum(runs, out=starts[1:])
    total = np.zeros(max(0, len(units) - length + 1), dtype=np.uint64)
    for place in range(length):
        total = (total + units[place : place + len(total)]) * np.uint64(_PRIME)
    found = np.zeros(int(starts[-1]), dtype=np.uint64)
    text_of_unit = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    if len(total):
        whole = text_of_unit[: len(total)] == text_of_unit[length - 1 :]
        text_of_run = np.repeat(np.arange(len(counts), dtype=np.int32), runs)
        found[counts[text_of_run] >= length] = total[whole]
    for text in np.flatnonzero((counts > 0) & (counts < length)):
        value = np.uint64(counts[text])
        with np.errstate(over="ignore"):
            for unit in units[bounds[text] : bounds[text + 1]]:
                value = (value + unit) * np.uint64(_PRIME)
        found[starts[text]] = value
    return mix(found), starts
