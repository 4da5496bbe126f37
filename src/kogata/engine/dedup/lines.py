"""Repeated lines: menus, notices and footers that stand on many pages of one host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field

from kogata.core.artifact import Document
from kogata.core.variants import VariantSettings
from kogata.engine.dedup._table import Notes, Table

STREAMS = False
EDITS = True
BYTES_PER_LINE = 60
"""Memory of sorting one line's number."""


class Settings(VariantSettings):
    """Takes out lines that stand in several documents of one host; the first document keeps them."""

    documents: int = Field(default=3, ge=2, description="documents a line stands in before it goes")
    within: Literal["host", "corpus"] = Field(
        default="host",
        description="where lines are counted: among pages of one host (by the `url` in their meta; documents "
        "without one are left alone), or in the whole corpus",
    )


def _place(document: Document, settings: Settings) -> str | None:
    if settings.within == "corpus":
        return ""
    url = document.meta.get("url")
    if not isinstance(url, str):
        return None
    try:
        return urlsplit(url).netloc.lower().removeprefix("www.") or None
    except ValueError:
        return None


def _numbers(document: Document, settings: Settings) -> tuple[list[str], np.ndarray] | None:
    """Gives a document's lines and a number for each (0 for blank ones); None where it has no place."""
    import xxhash

    place = _place(document, settings)
    if place is None:
        return None
    seed = xxhash.xxh3_64_intdigest(place.encode("utf-8", "surrogatepass"))
    lines = document.text.split("\n")
    bare = [" ".join(line.split()) for line in lines]
    numbers = [
        xxhash.xxh3_64_intdigest(line.encode("utf-8", "surrogatepass"), seed=seed) or 1 if line else 0
        for line in bare
    ]
    return lines, np.array(numbers, dtype=np.uint64)


class Gather:
    """Notes the distinct lines of each document."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._count = settings, 0
        self._lines = (folder / "lines.bin").open("wb")
        self._owners = (folder / "line-owners.bin").open("wb")

    def add(self, documents: Sequence[Document]) -> None:
        """Notes some documents, in order."""
        for document in documents:
            found = _numbers(document, self._settings)
            if found is not None:
                numbers = np.unique(found[1])
                numbers = numbers[numbers > 0]
                self._lines.write(numbers.astype("<u8").tobytes())
                self._owners.write(np.full(len(numbers), self._count, dtype="<u4").tobytes())
            self._count += 1

    def close(self) -> None:
        """Finishes the files."""
        self._lines.close()
        self._owners.close()


def decide(settings: Settings, table: Table, notes: Notes) -> None:
    """Finds the lines that repeat, among documents that stay in the end, and notes how to take them out."""
    first = notes.first
    counted = table.alive & (table.role != table.HELDOUT)
    total = sum((folder / "lines.bin").stat().st_size // 8 for folder in notes.folders)
    parts = max(1, -(-total * BYTES_PER_LINE // notes.memory_bytes))
    found_lines, found_first = [], []
    for part in range(parts):
        notes.stopping()
        some_lines, some_rows = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
        for shard, folder in enumerate(notes.folders):
            numbers = np.fromfile(folder / "lines.bin", dtype="<u8")
            rows = first[shard] + np.fromfile(folder / "line-owners.bin", dtype="<u4").astype(np.int64)
            mine = counted[rows] & (numbers % np.uint64(parts) == part)
            some_lines.append(numbers[mine])
            some_rows.append(rows[mine])
        numbers, rows = np.concatenate(some_lines), np.concatenate(some_rows)
        order = np.argsort(numbers, kind="stable")  # rows rise, so the first of a run is the first document
        numbers, rows = numbers[order], rows[order]
        edges = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1], [True]]))
        often = np.diff(edges) >= settings.documents
        found_lines.append(numbers[edges[:-1][often]] if len(numbers) else numbers)
        found_first.append(rows[edges[:-1][often]] if len(numbers) else rows)
    lines, owners = np.concatenate(found_lines), np.concatenate(found_first)
    order = np.argsort(lines)
    lines, owners = lines[order], owners[order]
    table.facts["lines"] = {"repeated_lines": len(lines)}

    def edit(row: int, document: Document) -> tuple[str, int]:
        found = _numbers(document, settings)
        if found is None or not len(lines):
            return document.text, 0
        texts, numbers = found
        where = np.minimum(np.searchsorted(lines, numbers), len(lines) - 1)
        goes = (lines[where] == numbers) & (owners[where] != row)
        if not goes.any():
            return document.text, 0
        kept = [text for text, gone in zip(texts, goes.tolist(), strict=True) if not gone]
        return "\n".join(kept).strip("\n"), int(goes.sum())

    table.edits.append(edit)
