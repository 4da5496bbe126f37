"""The table of all documents of a deduplication: their roles, who is still in, and what duplicates what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kogata.core.artifact import Document
from kogata.engine.pool import Spread

BYTES_PER_DOCUMENT = 80
"""Memory that a row takes while methods decide: its columns here and the sorting of fingerprints."""


@dataclass(frozen=True)
class Notes:
    """What one pass noted of each shard, in the order of the shards."""

    folders: list[Path]
    counts: list[int]
    memory_bytes: int
    """What a decision may hold at once, beside the table."""
    stopping: Callable[[], None] = lambda: None
    """Raises when someone asked to stop; called now and then."""
    say: Callable[[str], None] = lambda text: None
    processes: int = 1
    """How many join what was noted."""
    spread: Spread | None = None
    """Hands the joining to a cluster instead."""

    @property
    def first(self) -> np.ndarray:
        """The number of each shard's first document, and last that of all documents."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)


class Table:
    """A row per document: test and held-out ones first, then an earlier corpus, then those to be judged."""

    TRAIN: ClassVar[int] = 0
    HELDOUT: ClassVar[int] = 1
    EARLIER: ClassVar[int] = 2

    def __init__(self, roles: Sequence[int], counts: Sequence[int], methods: Sequence[str]) -> None:
        self.role = np.repeat(np.array(roles, dtype=np.uint8), counts)
        self.alive = np.ones(len(self.role), dtype=bool)
        self.of = np.full(len(self.role), -1, dtype=np.int64)
        """Which document it duplicates; −1 for none."""
        self.similarity = np.ones(len(self.role), dtype=np.float32)
        self.by = np.zeros(len(self.role), dtype=np.uint8)
        self.methods = list(methods)
        self.edits: list[Callable[[int, Document], tuple[str, int]]] = []
        """Functions of a document's number and itself: its text without some parts, and how many went."""
        self.facts: dict[str, Any] = {}
        """What methods tell of their work."""

    def drop(
        self, method: str, rows: np.ndarray, of: np.ndarray, similarity: np.ndarray | None = None
    ) -> None:
        """Takes training documents out; rows of other roles are passed over."""
        mine = self.role[rows] == self.TRAIN
        rows, of = rows[mine], of[mine]
        self.alive[rows] = False
        self.of[rows] = of
        self.by[rows] = self.methods.index(method)
        if similarity is not None:
            self.similarity[rows] = similarity[mine]

    def staying(self) -> np.ndarray:
        """Gives the document that stays for each dropped one, through leaders that were dropped later."""
        stays = self.of.copy()
        rows = np.flatnonzero(stays >= 0)
        while len(rows):
            rows = rows[stays[stays[rows]] >= 0]
            stays[rows] = stays[stays[rows]]
        return stays

    def reason(self, row: int) -> str:
        """Says why a document was dropped."""
        what = "copy" if self.methods[self.by[row]] in ("exact", "heldout") else "near-duplicate"
        role = self.role[self.of[row]]
        if role == self.HELDOUT:
            return f"{what} of a held-out or test document"
        return f"{what} of a document of the earlier corpus" if role == self.EARLIER else what
