"""Words, in languages that set them apart by spaces."""

from __future__ import annotations

from kogata.engine.filters._view import View


def mean_word_length(view: View) -> float | None:
    """Gives the mean length of words in characters; None where words are not set apart."""
    if not view.spaced or not view.words:
        return None
    return sum(map(len, view.words)) / len(view.words)
