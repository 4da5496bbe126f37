"""Leaves out menus, lists and tables by their lines: ends like sentences, not all short, not said twice.

A line is short up to `short_line` characters, half as many in languages without spaces. The shares are
FineWeb's; of repeated lines its code allows 0.01 where its paper says 0.1, and so does this.

Pays when: the text is from the web, after Gopher's rules.
Hurts when: the text is verse, plays or code: their lines are short and end anyhow.
Cost: about 4 s for 100 MB on one core.
Source: Penedo et al. 2024 (arXiv 2406.17557), section 3.6.
Measured here: 9.7% [filters.json:arms.fineweb.clean:.1%] of the bytes of
    clean text went, and 77.3% [filters.json:arms.fineweb.junk:.1%] of junk's; words in
    random order went for they stand in one line.
"""

from __future__ import annotations

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.filters import _repetition, _words
from kogata.engine.filters._family import Family, bound, bounds
from kogata.engine.filters._view import View

SECONDS_PER_BYTE = 4e-8
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `fineweb`."""

    min_ended_lines: float | None = Field(
        default=0.12, ge=0, le=1, description="share of lines that end in a mark that ends a sentence"
    )
    max_short_lines: float | None = Field(
        default=0.67, ge=0, le=1, description="share of short lines, at most"
    )
    short_line: int = Field(default=30, ge=1, description="characters up to which a line is short")
    max_repeated_line_characters: float | None = Field(
        default=0.01, ge=0, le=1, description="share of characters in lines that stood before"
    )
    max_lines_per_word: float | None = Field(
        default=0.3, ge=0, description="line ends for each word, at most; only where spaces part words"
    )


def family(settings: Settings) -> Family:
    """Gives the rules in force."""
    checks = bounds(
        settings,
        {
            "min_ended_lines": _words.ended_line_share,
            "max_repeated_line_characters": _repetition.repeated_line_share,
            "max_lines_per_word": _lines_per_word,
        },
        "fineweb.",
    )
    if settings.max_short_lines is not None:

        def short(view: View) -> float:
            most = settings.short_line if view.spaced else settings.short_line / 2
            return sum(len(line) <= most for line in view.lines) / max(1, len(view.lines))

        checks.insert(1, bound("fineweb.max_short_lines", short, settings.max_short_lines, least=False))
    return Family(checks=checks)


def _lines_per_word(view: View) -> float | None:
    if not view.spaced or not view.words:
        return None
    return view.text.count("\n") / len(view.words)
