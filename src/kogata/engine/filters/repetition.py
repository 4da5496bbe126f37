"""Text that repeats itself: lines, paragraphs, runs of words, or of characters where no spaces part them."""

from __future__ import annotations

import numpy as np

from kogata.engine.filters._view import View

LEAST_UNITS = 50
"""Shorter texts repeat by chance."""


def _repeated(parts: list[str]) -> float:
    total = sum(map(len, parts))
    once = sum(map(len, set(parts)))
    return 1 - once / total if total else 0.0


def repeated_line_share(view: View) -> float:
    """Gives the share of characters in lines that stood before (Gopher: at most 0.2)."""
    return _repeated(view.lines) if len(view.lines) > 1 else 0.0


def repeated_paragraph_share(view: View) -> float:
    """Gives the share of characters in paragraphs that stood before (Gopher: at most 0.2)."""
    return _repeated(view.paragraphs) if len(view.paragraphs) > 1 else 0.0


def top_ngram_share(view: View) -> float:
    """Gives the share of the text that its commonest run covers: 3 words, or 6 characters without spaces."""
    length = 3 if view.spaced else 6
    if len(view.units) < LEAST_UNITS:
        return 0.0
    _, counts = np.unique(view.ngrams(length), return_counts=True)
    most = int(counts.max())
    return most * length / len(view.units) if most > 1 else 0.0


def repeated_ngram_share(view: View) -> float:
    """Gives the share of the text in runs that occurred before: 10 words, or 20 characters without spaces."""
    length = 10 if view.spaced else 20
    if len(view.units) < LEAST_UNITS:
        return 0.0
    found = view.ngrams(length)
    _, first = np.unique(found, return_index=True)
    again = np.ones(len(found), dtype=bool)
    again[first] = False
    covered = np.zeros(len(view.units) + 1, dtype=np.int64)
    starts = np.flatnonzero(again)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + length, -1)
    return float(np.count_nonzero(np.cumsum(covered[:-1]))) / len(view.units)
