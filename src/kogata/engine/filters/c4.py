"""Takes out lines about scripts and cookies, then leaves out code, filler and scraps: the rules of C4.

Lines go from training documents only. That every line must end like a sentence is off: FineWeb found that
it costs a third of the text and gains little.

Pays when: the text is from the web.
Hurts when: the corpus has code in it (a brace is enough), or lines of one or two words, as plays do.
Cost: about 5 s for 100 MB on one core.
Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.2; not its list of bad words.
Measured here: 6.0% [filters.json:arms.c4.clean:.1%] of the bytes of
    clean text went (of manuals 21.2% [filters.json:arms.c4.parts.manuals:.1%]), and
    17.8% [filters.json:arms.c4.junk:.1%] of junk's (of raw HTML
    67.9% [filters.json:arms.c4.parts.html:.1%]).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.filters._family import Check, Family
from kogata.engine.filters._view import View

_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*(?=\s|$)|[。！？]")
_TERMINAL = (".", "!", "?", '"', "”", "。", "！", "？", "」", "』")
PHRASES = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies", "プライバシーポリシー", "利用規約", "クッキーを使用", "cookieを使用",
)  # fmt: skip

SECONDS_PER_BYTE = 5e-8
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `c4`."""

    min_sentences: int | None = Field(default=5, ge=0, description="sentences a document has at least")
    min_words_per_line: int = Field(
        default=3, ge=0, description="lines of fewer words go; only where spaces part words"
    )
    phrases: list[str] = Field(
        default_factory=lambda: list(PHRASES), description="lines that hold one of these go, in any case"
    )
    ended_lines: bool = Field(default=False, description="lines that do not end like a sentence go")
    braces: bool = Field(default=True, description="a document with a { in it is code and goes")
    filler: bool = Field(default=True, description="a document with lorem ipsum in it goes")


def family(settings: Settings) -> Family:
    """Gives the lines to take out and the rules in force."""
    checks: list[Check] = []
    if settings.braces:
        checks.append(Check("c4.braces", lambda view: view.text.count("{") or None))
    if settings.filler:
        checks.append(Check("c4.filler", lambda view: view.text.lower().count("lorem ipsum") or None))
    if settings.min_sentences:
        checks.append(_sentences(settings.min_sentences))
    return Family(checks=checks, clean=_cleaner(settings))


def _sentences(least: int) -> Check:
    def value(view: View) -> int | None:
        found = 0
        for found, _ in enumerate(_SENTENCE_END.finditer(view.text), 1):
            if found >= least:
                return None
        return found

    return Check(f"c4.min_sentences {least}", value)


def _cleaner(settings: Settings) -> Callable[[View], tuple[str, dict[str, int]]] | None:
    phrases = [phrase.lower() for phrase in settings.phrases if phrase]
    if not phrases and not settings.min_words_per_line and not settings.ended_lines:
        return None
    pattern = re.compile("|".join(map(re.escape, phrases))) if phrases else None

    def clean(view: View) -> tuple[str, dict[str, int]]:
        kept: list[str] = []
        gone: dict[str, int] = {}
        least = settings.min_words_per_line if view.spaced else 0
        suspect = pattern is not None and pattern.search(view.text.lower()) is not None
        for line in view.text.split("\n"):
            bare = line.strip()
            reason = None
            if not bare:
                pass
            elif least and len(bare.split(None, least)) < least:
                reason = f"c4.min_words_per_line {least}"
            elif suspect and pattern is not None and pattern.search(bare.lower()):
                reason = "c4.phrases"
            elif settings.ended_lines and not bare.endswith(_TERMINAL):
                reason = "c4.ended_lines"
            if reason is None:
                kept.append(line)
            else:
                gone[reason] = gone.get(reason, 0) + 1
        return ("\n".join(kept).strip("\n"), gone) if gone else (view.text, gone)

    return clean
