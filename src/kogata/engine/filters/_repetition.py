"""Text that repeats itself: lines, paragraphs, runs of words, or of characters where no spaces part them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kogata.engine.filters._view import View

if TYPE_CHECKING:
    import numpy as np

LEAST_UNITS = 50
"""Shorter texts repeat by chance."""
CHARACTERS_PER_WORD = 2
"""Characters of Japanese or Chinese that a run of words counts as, for each word."""


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


def copied_line_share(view: View) -> float:
    """Gives the share of lines that stood before (Gopher: at most 0.3)."""
    return 1 - len(set(view.lines)) / len(view.lines) if view.lines else 0.0


def copied_paragraph_share(view: View) -> float:
    """Gives the share of paragraphs that stood before (Gopher: at most 0.3)."""
    return 1 - len(set(view.paragraphs)) / len(view.paragraphs) if view.paragraphs else 0.0


def _length(view: View, words: int) -> int:
    return words if view.spaced else CHARACTERS_PER_WORD * words


def top_ngram_share(view: View, words: int = 3) -> float:
    """Gives the share of the text that its commonest run covers: words, or twice as many characters."""
    import numpy as np

    if len(view.units) < LEAST_UNITS:
        return 0.0
    length = _length(view, words)
    found = view.repeats(length)
    if not len(found.starts):
        return 0.0
    most = int(np.bincount(found.groups).max())
    return most * length / len(view.units)


def top_ngram_character_share(view: View, words: int) -> float:
    """Gives the share of characters in the commonest run of words; of several, in the longest."""
    import numpy as np

    if len(view.units) < LEAST_UNITS:
        return 0.0
    length = _length(view, words)
    found = view.repeats(length)
    if not len(found.starts):
        return 0.0
    counts = np.bincount(found.groups)
    most = counts.max()
    starts = found.starts[found.first & (counts[found.groups] == most)]
    longest = (view.unit_ends[starts + length] - view.unit_ends[starts]).max()
    return float(most * longest / max(1, view.unit_ends[-1]))


def _covered(view: View, length: int) -> np.ndarray | None:
    import numpy as np

    found = view.repeats(length)
    again = found.starts[~found.first]
    if not len(again):
        return None
    turns = np.zeros(len(view.units) + 1, dtype=np.int64)
    np.add.at(turns, again, 1)
    np.add.at(turns, again + length, -1)
    return np.cumsum(turns[:-1]) > 0


def repeated_ngram_share(view: View, words: int = 10) -> float:
    """Gives the share of the text in runs that occurred before: words, or twice as many characters."""
    import numpy as np

    if len(view.units) < LEAST_UNITS:
        return 0.0
    covered = _covered(view, _length(view, words))
    return 0.0 if covered is None else float(np.count_nonzero(covered)) / len(view.units)


def repeated_ngram_character_share(view: View, words: int) -> float:
    """Gives the share of characters in runs of words that occurred before, each counted once."""
    import numpy as np

    if len(view.units) < LEAST_UNITS:
        return 0.0
    covered = _covered(view, _length(view, words))
    if covered is None:
        return 0.0
    return float(np.diff(view.unit_ends)[covered].sum() / max(1, view.unit_ends[-1]))
