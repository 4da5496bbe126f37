"""Training copies of held-out and test documents: what is judged on must not be trained on."""

from __future__ import annotations

import numpy as np

from kogata.core.variants import VariantSettings
from kogata.engine.dedup._equal import Gather, leaders
from kogata.engine.dedup._table import Notes, Table

__all__ = ["STREAMS", "Gather", "Settings", "decide", "reason"]

STREAMS = True


class Settings(VariantSettings):
    """Leaves out training documents that equal a held-out or test document."""


def reason(training: bool) -> str | None:
    """Says why a document goes that equals an earlier one."""
    return None if training else "copy of a held-out or test document"


def decide(settings: Settings, table: Table, notes: Notes) -> None:
    """Drops training documents equal to a held-out or test document, wherever it stands."""
    copies, of = leaders(
        notes, table.alive & (table.role != table.EARLIER), first=table.role == table.HELDOUT
    )
    held = table.role[of] == table.HELDOUT if len(of) else np.zeros(0, dtype=bool)
    table.drop("heldout", copies[held], of[held])
