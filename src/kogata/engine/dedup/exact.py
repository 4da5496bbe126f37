"""Exact copies among the training documents: equal up to Unicode form (NFC) and white space."""

from __future__ import annotations

from kogata.core.variants import VariantSettings
from kogata.engine.dedup._equal import Gather, leaders
from kogata.engine.dedup._table import Notes, Table

__all__ = ["STREAMS", "Gather", "Settings", "decide", "reason"]

STREAMS = True


class Settings(VariantSettings):
    """Leaves out training documents that equal an earlier training document."""


def reason(training: bool) -> str | None:
    """Says why a document goes that equals an earlier one."""
    return "copy" if training else None


def decide(settings: Settings, table: Table, notes: Notes) -> None:
    """Drops all but the first of equal training documents; those of an earlier corpus come first."""
    candidates = table.alive & (table.role != table.HELDOUT)
    copies, of = leaders(notes, candidates)
    table.drop("exact", copies, of)
