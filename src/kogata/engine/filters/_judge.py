"""Judging documents one by one: by rules that any process can make anew, or by a family learned here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from kogata.core.artifact import Document
from kogata.core.registry import registry
from kogata.core.stage import Account
from kogata.engine.filters._family import Family
from kogata.engine.filters._own import own_checks
from kogata.engine.filters._view import View
from kogata.engine.pool import Unlimited


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a document: it stays, or a reason with its value."""

    reason: str | None = None
    value: Any = None
    text: str | None = None
    """What is left of it, where lines went."""
    lines: dict[str, int] = field(default_factory=dict)
    """Lines that went, by reason."""

    def settle(self, document: Document, account: Account) -> Document | None:
        """Counts it; gives the document as it stays."""
        for reason, count in self.lines.items():
            gone = account.extra.setdefault("lines_taken_out", {})
            gone[reason] = gone.get(reason, 0) + count
        if self.reason is not None:
            account.reject(self.reason, document, self.value)
            return None
        return document if self.text is None else replace(document, text=self.text)


def judge(families: Sequence[Family], document: Document) -> Verdict:
    """Says what becomes of a document; held-out and test documents stay as they are."""
    if document.split != "train":
        return Verdict()
    view = View(document.text, document.meta)
    lines: dict[str, int] = {}
    for family in families:
        if family.clean is not None:
            text, gone = family.clean(view)
            if gone:
                for reason, count in gone.items():
                    lines[reason] = lines.get(reason, 0) + count
                view = View(text, document.meta)
                if not text.strip():
                    return Verdict(next(iter(gone)), f"all of {sum(gone.values())} lines", lines=lines)
        for reason, broken in family.checks:
            if (value := broken(view)) is not None:
                return Verdict(reason, value, lines=lines)
    return Verdict(text=None if view.text is document.text else view.text, lines=lines)


@dataclass(frozen=True, kw_only=True)
class Judge(Unlimited):
    """Judges by the stage's own rules and families that learn nothing; can be sent to another process."""

    own: dict[str, float | None] = field(default_factory=dict)
    rules: tuple[tuple[str, Any], ...] = ()
    """Families by name, with their settings."""
    learned: Family | None = None
    """A family of this process alone, in place of the others."""
    stage: ClassVar[str] = "data.filter"

    def start(self) -> Callable[[Document], Verdict]:
        """Makes the families and gives the function from document to verdict."""
        if self.learned is not None:
            return partial(judge, [self.learned])
        made = [registry.variant("engine.filters", name).family(settings) for name, settings in self.rules]
        return partial(judge, [Family(checks=own_checks(SimpleNamespace(**self.own))), *made])

    def digest(self, document: Document) -> int:
        """Gives a number that another document has not."""
        import xxhash

        name = f"{document.split} {document.id}".encode("utf-8", "surrogatepass")
        text = document.text.encode("utf-8", "surrogatepass")
        return xxhash.xxh3_64_intdigest(text, xxhash.xxh3_64_intdigest(name))

    def size(self, verdict: Verdict) -> int:
        """Gives the characters of its row, about."""
        return 60 + len(verdict.text or "")

    def row(self, verdict: Verdict) -> dict[str, Any]:
        """Gives plain values for JSON; nothing of a document that stays as it is."""
        names = ("reason", "value", "text", "lines")
        return {name: value for name in names if (value := getattr(verdict, name)) not in (None, {})}

    def outcome(self, row: dict[str, Any]) -> Verdict:
        """Gives what `row` was made of."""
        return Verdict(**row)
