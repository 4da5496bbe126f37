"""The stage's own rules: loose ones that take what is plainly broken."""

from __future__ import annotations

from typing import Any

from kogata.engine.filters import _length, _repetition, _symbols, _words
from kogata.engine.filters._family import Check, bounds

MEASURES = {
    "min_characters": _length.characters,
    "max_characters": _length.characters,
    "max_replacement": _symbols.replacement_share,
    "max_symbols": _symbols.symbol_share,
    "max_repeated_lines": _repetition.repeated_line_share,
    "max_repeated_paragraphs": _repetition.repeated_paragraph_share,
    "min_word_length": _words.mean_word_length,
    "max_word_length": _words.mean_word_length,
    "max_top_ngram": _repetition.top_ngram_share,
    "max_repeated_ngrams": _repetition.repeated_ngram_share,
}
"""What each setting bounds, the cheap ones first."""


def own_checks(settings: Any) -> list[Check]:
    """Lists the rules in force; a setting that is null is not."""
    return bounds(settings, MEASURES)
