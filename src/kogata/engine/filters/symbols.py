"""Signs that are no letters: markup, tables, damage."""

from __future__ import annotations

import re

from kogata.engine.filters._view import View

# Marks that running text is made of; a document of them alone is caught by other rules.
_SYMBOL = re.compile(r"[^\w\s.,;:!?'\"()\-–—‘’“”…、。「」『』！？（）・ー々〆〇　]")


def symbol_share(view: View) -> float:
    """Gives the share of visible characters that are neither letters, digits nor usual marks."""
    visible = sum(map(len, view.words))
    return len(_SYMBOL.findall(view.text)) / visible if visible else 0.0


def replacement_share(view: View) -> float:
    """Gives the share of characters that are U+FFFD, the sign of a lost byte."""
    return view.text.count("\ufffd") / max(1, len(view.text))
