"""Takes the main text of a page by many rules, with less of what stands around it (trafilatura).

With `second_look` two other extractors look again at pages on which its rules find little.

Pays when: there are few pages and the time for them.
Hurts when: there are many: it takes about eight times as long, and training gains little by it.
Cost: about 16 ms a page of 70 kB on one core.
Source: Barbaresi 2021, Trafilatura: a web scraping library.
Measured here: F1 0.962 [extract.json:articles.extractors.careful.f1:.3f], precision
    0.946 [extract.json:articles.extractors.careful.precision:.3f], recall
    0.979 [extract.json:articles.extractors.careful.recall:.3f] on
    181 [extract.json:articles.pages:.0f] news and blog pages.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from kogata.core.errors import EnvironmentProblem
from kogata.core.variants import VariantSettings

SECONDS_PER_PAGE = 2e-3
SECONDS_PER_BYTE = 1.2e-7


class Settings(VariantSettings):
    """Settings of `careful`."""

    second_look: bool = Field(default=False, description="other extractors look again where little is found")
    comments: bool = Field(default=False, description="readers' comments count as main text")
    tables: bool = Field(default=True, description="the text of tables is taken")


def extractor(settings: Settings) -> Callable[[str, str], str]:
    """Gives the function from HTML and URL to text.

    Raises:
        EnvironmentProblem: trafilatura is not installed.
    """
    try:
        from trafilatura import extract as look
    except ImportError:
        raise EnvironmentProblem(
            "pages cannot be read with care: trafilatura is not installed", remedy="pip install 'kogata[web]'"
        ) from None

    def extract(html: str, url: str) -> str:
        found = look(
            html,
            url=url or None,
            fast=not settings.second_look,
            include_comments=settings.comments,
            include_tables=settings.tables,
        )
        return found or ""

    return extract
