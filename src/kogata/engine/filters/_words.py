"""Words, in languages that set them apart by spaces; letters, in those that do not."""

from __future__ import annotations

import re

from kogata.engine.filters._view import View

_LETTER = re.compile(r"[^\W\d_]")
_BULLETS = tuple("•‣●○■□◦▪▶►–—-*・◆◇※")
_ENDINGS = tuple(".!?。！？．」』”\"'…”’)")


def mean_word_length(view: View) -> float | None:
    """Gives the mean length of words in characters; None where words are not set apart."""
    if not view.spaced or not view.words:
        return None
    return view.visible / len(view.words)


def word_count(view: View) -> int | None:
    """Counts words; None where words are not set apart."""
    return len(view.words) if view.spaced else None


def unspaced_characters(view: View) -> int | None:
    """Counts visible characters where words are not set apart; None where they are."""
    return None if view.spaced else view.visible


def lettered_share(view: View) -> float | None:
    """Gives the share of words with a letter in them; None where words are not set apart."""
    if not view.spaced or not view.words:
        return None
    search = _LETTER.search
    return sum(word[0].isalpha() or search(word) is not None for word in view.words) / len(view.words)


def hashes_per_word(view: View) -> float:
    """Gives the number of # signs for each word; two characters count as a word where none are set apart."""
    return view.text.count("#") / max(1.0, _word_equivalents(view))


def ellipses_per_word(view: View) -> float:
    """Gives the number of ellipses for each word; two characters count as a word where none are set apart."""
    found = view.text.count("...") + view.text.count("…")
    return found / max(1.0, _word_equivalents(view))


def _word_equivalents(view: View) -> float:
    return len(view.words) if view.spaced else view.visible / 2


def bullet_line_share(view: View) -> float:
    """Gives the share of lines that begin with a bullet."""
    return sum(line.startswith(_BULLETS) for line in view.lines) / max(1, len(view.lines))


def ellipsis_line_share(view: View) -> float:
    """Gives the share of lines that end in an ellipsis."""
    return sum(line.endswith(("...", "…")) for line in view.lines) / max(1, len(view.lines))


def ended_line_share(view: View) -> float:
    """Gives the share of lines that end in a full stop or another mark that ends a sentence."""
    return sum(line.endswith(_ENDINGS) for line in view.lines) / max(1, len(view.lines))
