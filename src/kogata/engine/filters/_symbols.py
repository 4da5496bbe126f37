"""Signs that are no letters: markup, tables, damage."""

from __future__ import annotations

import re

from kogata.engine.filters._view import View

# Marks that running text is made of, and the vowel signs of scripts that write them as marks of their own.
_USUAL = ".,;:!?'\"()\\-–—‘’“”„«»¿¡…·、。，；：「」『』（）！？・ー々〆〇　،؛؟।॥"
_SIGNS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u06d6-\u06ed\u0900-\u109f\u135d-\u135f\u1780-\u17ff\u3099\u309a"
)
_SYMBOL = re.compile(rf"[^\w\s{_USUAL}{_SIGNS}\]]")


def symbol_share(view: View) -> float:
    """Gives the share of visible characters that are neither letters, digits nor usual marks."""
    visible = sum(map(len, view.words))
    return len(_SYMBOL.findall(view.text)) / visible if visible else 0.0


def replacement_share(view: View) -> float:
    """Gives the share of characters that are U+FFFD, the sign of a lost byte."""
    return view.text.count("\ufffd") / max(1, len(view.text))
