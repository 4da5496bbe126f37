"""Length of a document in characters."""

from __future__ import annotations

from kogata.engine.filters._view import View


def characters(view: View) -> int:
    """Counts characters, white space around the text left out."""
    return len(view.text.strip())
