"""Leaves out what is too short, too long, or no prose by its words: Gopher's rules of quality.

Rules of words hold where words are set apart by spaces; Japanese, Chinese and Thai are measured in
characters, and their common words are looked for as parts of the text.

Pays when: the text is from the web: these rules take lists, menus, keywords and scraps.
Hurts when: the text is verse, dialogue of one line a page, or lists that are meant.
Cost: about 6 s for 100 MB on one core.
Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1.
Measured here: 0.7% [filters.json:arms.gopher_quality.clean:.1%] of the bytes of
    clean text went, and 25.1% [filters.json:arms.gopher_quality.junk:.1%] of junk's (of raw
    HTML 80.7% [filters.json:arms.gopher_quality.parts.html:.1%]).
"""

from __future__ import annotations

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.filters import _words
from kogata.engine.filters._family import Check, Family, bounds
from kogata.engine.filters._stop_words import STOP_WORDS
from kogata.engine.filters._view import View

SECONDS_PER_BYTE = 6e-8
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `gopher_quality`."""

    min_words: int | None = Field(default=50, ge=0, description="words a document has at least")
    max_words: int | None = Field(default=100_000, ge=1, description="words a document has at most")
    min_characters: int | None = Field(
        default=100, ge=0, description="characters at least, in languages without spaces between words"
    )
    max_characters: int | None = Field(
        default=200_000, ge=1, description="characters at most, in languages without spaces between words"
    )
    min_word_length: float | None = Field(default=3.0, ge=0, description="mean characters of a word at least")
    max_word_length: float | None = Field(default=10.0, ge=0, description="mean characters of a word at most")
    max_hashes: float | None = Field(default=0.1, ge=0, description="# signs for each word at most")
    max_ellipses: float | None = Field(default=0.1, ge=0, description="ellipses for each word at most")
    max_bullet_lines: float | None = Field(
        default=0.9, ge=0, le=1, description="share of lines that begin with a bullet, at most"
    )
    max_ellipsis_lines: float | None = Field(
        default=0.3, ge=0, le=1, description="share of lines that end in an ellipsis, at most"
    )
    min_lettered_words: float | None = Field(
        default=0.8, ge=0, le=1, description="share of words with a letter in them, at least"
    )
    min_stop_words: int | None = Field(
        default=2, ge=0, description="different common words of its language a document has at least"
    )


def family(settings: Settings) -> Family:
    """Gives the rules in force."""
    checks = bounds(
        settings,
        {
            "min_words": _words.word_count,
            "max_words": _words.word_count,
            "min_characters": _words.unspaced_characters,
            "max_characters": _words.unspaced_characters,
            "min_word_length": _words.mean_word_length,
            "max_word_length": _words.mean_word_length,
            "max_hashes": _words.hashes_per_word,
            "max_ellipses": _words.ellipses_per_word,
            "max_bullet_lines": _words.bullet_line_share,
            "max_ellipsis_lines": _words.ellipsis_line_share,
            "min_lettered_words": _words.lettered_share,
        },
        "gopher_quality.",
    )
    if settings.min_stop_words:
        checks.append(_stop_words(settings.min_stop_words))
    return Family(checks=checks)


def _stop_words(least: int) -> Check:
    def value(view: View) -> int | None:
        common = STOP_WORDS.get(view.language)
        if common is None:
            return None
        if view.spaced:
            found = len(common & set(view.text.lower().split()))
        else:
            found = sum(word in view.text for word in common)
        return None if found >= least else found

    return Check(f"gopher_quality.min_stop_words {least}", value)
