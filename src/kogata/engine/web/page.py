"""A page as it was fetched, and how pages may be read."""

from __future__ import annotations

from dataclasses import dataclass

SUFFIXES_ARCHIVE = (".warc", ".wet", ".arc")
SUFFIXES_HTML = (".html", ".htm", ".xhtml")
SUFFIXES = (*SUFFIXES_ARCHIVE, *SUFFIXES_HTML)
"""Of input files, each also with .gz or .zst."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its bytes and what its record says."""

    id: str
    """File and number of the page in it."""
    source: str
    content: bytes
    url: str = ""
    date: str = ""
    """When it was fetched, ISO 8601 in UTC."""
    charset: str = ""
    """As the server said."""
    html: bool = True
    """False for text that somebody extracted already (WET)."""
