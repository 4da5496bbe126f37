"""What pages will give and cost, from file sizes and the first pages of a few files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.survey import Survey
from kogata.engine.text import language_hint, utf8_length
from kogata.engine.web.charset import decode_page
from kogata.engine.web.page import SUFFIXES_HTML, Page
from kogata.engine.web.pages import pages_of

SAMPLED_FILES = 6
SAMPLED_PAGES = 24
"""Looked at in all, shared among the files looked into."""
HEAD_BYTES = 350
"""Of a record, before its content."""
TEXT_SHARE = 0.12
"""Of a page's bytes, that its main text has; the median of news pages and manuals."""


@dataclass(frozen=True, kw_only=True)
class WebSurvey:
    """What files of pages hold, estimated."""

    text: Survey
    pages: int
    page_bytes: int


def survey_pages(files: Sequence[InputFile], most: int, *, named: bool) -> WebSurvey:
    """Estimates what files of pages hold.

    Raises:
        Unreadable: a named file is no archive or page.
    """
    raw = sum(file.raw_bytes() for file in files)
    step = max(1, len(files) // SAMPLED_FILES)
    chosen = files[::step][:SAMPLED_FILES]
    pages: list[Page] = []
    looked = 0
    for file in chosen:
        account = Account()
        try:
            found = list(
                islice(pages_of([file], most, account, named=named), max(1, SAMPLED_PAGES // len(chosen)))
            )
        except Unreadable:
            if named:
                raise
            continue
        pages += found
        looked += account.read_bytes
        if file.suffix not in SUFFIXES_HTML:
            # Requests and metadata stand between pages, and every record has a head.
            looked += round(0.15 * account.read_bytes) + HEAD_BYTES * account.read
    page_bytes = sum(len(page.content) for page in pages)
    scale = raw / looked if looked else 0.0
    texts = [decode_page(page.content, page.charset)[0] for page in pages[:4]]
    size = sum((TEXT_SHARE if page.html else 1.0) * len(page.content) for page in pages)
    characters = sum(map(len, texts)) / max(1, sum(map(utf8_length, texts)))
    return WebSurvey(
        text=Survey(
            files=len(files),
            disk_bytes=sum(file.path.stat().st_size for file in files),
            raw_bytes=raw,
            documents=max(1, round(scale * len(pages))),
            bytes=round(scale * size),
            characters=round(scale * size * characters),
            language=language_hint(" ".join(_visible(text) for text in texts)),
        ),
        pages=max(1, round(scale * len(pages))),
        page_bytes=round(scale * page_bytes),
    )


def _visible(html: str) -> str:
    """Gives roughly the text of a page, to guess its language by."""
    import re

    bare = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>", " ", html[:200_000])
    return " ".join(bare.split())[:20_000]
