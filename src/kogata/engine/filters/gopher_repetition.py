"""Leaves out what repeats its lines, its paragraphs or runs of 2 to 10 words: Gopher's rules of repetition.

A run of words is taken as twice as many characters where words are not set apart, a Latin name there as one
character. Texts of fewer than 50 words repeat by chance and are not judged by their runs.

Pays when: the text is from the web: pages made by programs repeat themselves.
Hurts when: repetition is meant: songs, rules, tables in words.
Cost: about 10 s for 100 MB on one core.
Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, table A1.
Measured here: 5.0% [filters.json:arms.gopher_repetition.clean:.1%] of the bytes of clean text went (of web
    text 21.0% [filters.json:arms.gopher_repetition.parts.web:.1%]), and
    1.5% [filters.json:arms.gopher_repetition.junk:.1%] of junk's, which did not repeat itself.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.filters import _repetition
from kogata.engine.filters._family import Family, bounds

TOP = (2, 3, 4)
REPEATED = (5, 6, 7, 8, 9, 10)

SECONDS_PER_BYTE = 1e-7
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `gopher_repetition`."""

    max_repeated_lines: float | None = Field(
        default=0.3, ge=0, le=1, description="share of lines that stood before"
    )
    max_repeated_paragraphs: float | None = Field(
        default=0.3, ge=0, le=1, description="share of paragraphs that stood before"
    )
    max_repeated_line_characters: float | None = Field(
        default=0.2, ge=0, le=1, description="share of characters in lines that stood before"
    )
    max_repeated_paragraph_characters: float | None = Field(
        default=0.2, ge=0, le=1, description="share of characters in paragraphs that stood before"
    )
    max_top_2gram: float | None = Field(
        default=0.2, ge=0, le=1, description="share of characters in the commonest run of 2 words"
    )
    max_top_3gram: float | None = Field(
        default=0.18, ge=0, le=1, description="share of characters in the commonest run of 3 words"
    )
    max_top_4gram: float | None = Field(
        default=0.16, ge=0, le=1, description="share of characters in the commonest run of 4 words"
    )
    max_repeated_5grams: float | None = Field(
        default=0.15, ge=0, le=1, description="share of characters in runs of 5 words that occurred before"
    )
    max_repeated_6grams: float | None = Field(
        default=0.14, ge=0, le=1, description="share of characters in runs of 6 words that occurred before"
    )
    max_repeated_7grams: float | None = Field(
        default=0.13, ge=0, le=1, description="share of characters in runs of 7 words that occurred before"
    )
    max_repeated_8grams: float | None = Field(
        default=0.12, ge=0, le=1, description="share of characters in runs of 8 words that occurred before"
    )
    max_repeated_9grams: float | None = Field(
        default=0.11, ge=0, le=1, description="share of characters in runs of 9 words that occurred before"
    )
    max_repeated_10grams: float | None = Field(
        default=0.1, ge=0, le=1, description="share of characters in runs of 10 words that occurred before"
    )


def family(settings: Settings) -> Family:
    """Gives the rules in force; runs from short to long, as `View.repeats` is quick with."""
    return Family(
        checks=bounds(
            settings,
            {
                "max_repeated_lines": _repetition.copied_line_share,
                "max_repeated_paragraphs": _repetition.copied_paragraph_share,
                "max_repeated_line_characters": _repetition.repeated_line_share,
                "max_repeated_paragraph_characters": _repetition.repeated_paragraph_share,
                **{
                    f"max_top_{words}gram": partial(_repetition.top_ngram_character_share, words=words)
                    for words in TOP
                },
                **{
                    f"max_repeated_{words}grams": partial(
                        _repetition.repeated_ngram_character_share, words=words
                    )
                    for words in REPEATED
                },
            },
            "gopher_repetition.",
        )
    )
