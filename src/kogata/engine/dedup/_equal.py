"""Equal documents: a fingerprint of each, and who is first of those that share one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.artifact import Document
from kogata.engine.copies import fingerprint
from kogata.engine.dedup._table import Notes


class Gather:
    """Notes a fingerprint of 16 bytes of each document."""

    def __init__(self, settings: Any, folder: Path) -> None:
        self._file = (folder / "fingerprints.bin").open("wb")

    def add(self, documents: Sequence[Document]) -> None:
        """Notes some documents, in order."""
        self._file.write(b"".join(fingerprint(document.text) for document in documents))

    def close(self) -> None:
        """Finishes the file."""
        self._file.close()


def leaders(
    notes: Notes, candidates: np.ndarray, first: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the candidates that equal an earlier one, and which that is.

    Args:
        notes: where the fingerprints lie.
        candidates: which documents count, [documents].
        first: documents that come before all others, wherever they stand.
    """
    index = np.flatnonzero(candidates)
    prints = np.concatenate(
        [np.fromfile(folder / "fingerprints.bin", dtype="<u8").reshape(-1, 2) for folder in notes.folders]
    )[index]
    later = np.ones(len(index), dtype=np.uint8) if first is None else ~first[index]
    order = np.lexsort((later, prints[:, 1], prints[:, 0]))  # stable: equal ones stay in order
    prints = prints[order]
    new = np.ones(len(index), dtype=bool)
    new[1:] = (prints[1:] != prints[:-1]).any(axis=1)
    leader = order[np.flatnonzero(new)][np.cumsum(new) - 1] if len(order) else order
    copies, of = index[order[~new]], index[leader[~new]]
    by_place = np.argsort(copies)
    return copies[by_place], of[by_place]
