"""From a page to a document: charset, main text, language; each step may end it with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from kogata.core.artifact import Document
from kogata.core.registry import registry
from kogata.core.stage import Account
from kogata.engine.encodings import mend
from kogata.engine.text import UNDECODABLE
from kogata.engine.web.charset import decode_page
from kogata.engine.web.page import Page


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a page: a document, or a reason with its value."""

    document: Document
    reason: str | None = None
    value: Any = None
    counts: dict[str, int] = field(default_factory=dict)
    """Further things to count."""

    def settle(self, account: Account) -> Document | None:
        """Counts it; gives the document if there is one."""
        for name, count in self.counts.items():
            group, _, key = name.partition("/")
            if key:
                inner = account.extra.setdefault(group, {})
                inner[key] = inner.get(key, 0) + count
            else:
                account.extra[group] = account.extra.get(group, 0) + count
        if self.reason is None:
            return self.document
        account.reject(self.reason, self.document, self.value)
        return None


@dataclass(frozen=True, kw_only=True)
class Converter:
    """Turns pages into documents; plain values only, so that it can be sent to another process."""

    extractor: str
    """A variant of engine.extract."""
    settings: Any
    languages: frozenset[str] | None = None
    min_confidence: float = 0.0
    page_seconds: float = 20.0
    """CPU seconds a page may take."""
    stage: ClassVar[str] = "data.extract"

    @property
    def seconds(self) -> float:
        """Gives the CPU seconds a page may take."""
        return self.page_seconds

    def late(self, page: Page) -> Outcome:
        """Gives what becomes of a page that takes too long."""
        return Outcome(Document(page.id, "", source=page.source), "takes too long", page.url[:200] or None)

    def digest(self, page: Page) -> int:
        """Gives a number that another page has not."""
        import xxhash

        name = xxhash.xxh3_64_intdigest(page.id.encode("utf-8", "replace"))
        return xxhash.xxh3_64_intdigest(page.content, name)

    def size(self, outcome: Outcome) -> int:
        """Gives the characters of the document."""
        return len(outcome.document.text)

    def row(self, outcome: Outcome) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(outcome)

    def outcome(self, row: dict[str, Any]) -> Outcome:
        """Gives what `row` was made of."""
        return Outcome(document=Document(**row.pop("document")), **row)

    def start(self) -> Callable[[Page], Outcome]:
        """Loads what is needed and gives the function from page to outcome."""
        from kogata.engine.language import identify

        extract = registry.variant("engine.extract", self.extractor).extractor(self.settings)
        identify("a")  # its model is loaded now, not on some page's time
        return lambda page: self._convert(page, extract)

    def _convert(self, page: Page, extract: Callable[[str, str], str]) -> Outcome:
        from kogata.engine.language import identify

        decoded, encoding = decode_page(page.content, page.charset)
        counts = {f"encodings/{encoding}": 1}
        decoded, mends = mend(decoded)
        for name, count in (
            ("undecodable_bytes", mends.undecodable),
            ("lone_surrogates", mends.surrogates),
            ("nul_characters", mends.zeros),
        ):
            if count:
                counts[name] = count

        def none(reason: str, value: Any = None, text: str = "") -> Outcome:
            return Outcome(Document(page.id, text, source=page.source), reason, value, counts)

        if mends.undecodable > UNDECODABLE * len(decoded):
            return none("undecodable bytes", mends.undecodable, decoded)
        try:
            # References such as &#xD800; and &#0; bring back what was mended.
            text, _ = mend(extract(decoded, page.url) if page.html else decoded)
        except Exception as error:  # an extractor's fault with one page must not end a crawl
            return none("extractor failed", f"{type(error).__name__}: {error}"[:200])
        # A space that may not break is for browsers, not for readers.
        text = text.replace("\xa0", " ").strip()
        if not text:
            return none("no main text", page.url[:200] or None)
        language, confidence = identify(text)
        if self.languages is not None:
            if language not in self.languages:
                return none(f"language {language}", confidence, text)
            if confidence < self.min_confidence:
                return none("language unsure", f"{language} {confidence:.2f}", text)
        meta: dict[str, Any] = {"url": page.url, "date": page.date}
        meta = {name: value for name, value in meta.items() if value}
        meta |= {"language": language, "language_confidence": confidence}
        return Outcome(Document(page.id, text, source=page.source, meta=meta), counts=counts)
