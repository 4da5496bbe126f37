"""What tokens keep of their documents beside the ids: the source, and numbers from `meta`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.engine.text import GROUP
from kogata.engine.tokens import TokenStore, write_beside_tokens

OTHER = "other"
"""What the source of documents is called that name none, beside others that do."""


class Kept:
    """Notes, while documents pass by, what is kept of them.

    Args:
        columns: numbers that every training document's `meta` must have.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._names: dict[str | None, int] = {}
        self._sources: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def watch(self, documents: Iterable[Document], split: str) -> Iterator[Document]:
        """Passes documents on.

        Raises:
            DataError: a training document lacks a column, or it holds no number.
        """
        numbers = self._sources.setdefault(split, array("H"))
        values = self._values.setdefault(split, array("f"))
        for document in documents:
            group = document.meta.get(GROUP)
            name = None if group is None else str(group)
            numbers.append(self._names.setdefault(name, len(self._names)))
            if split == "train":
                values.extend(_number(document, column) for column in self._columns)
            yield document

    def write(self, out: Path) -> dict[str, dict[str, int]]:
        """Writes what is kept beside the tokens; gives what each source has for training.

        Of one source nothing is written: the files are what they were before there were sources.
        """
        if self._columns:
            table = np.array(self._values["train"], dtype="<f4").reshape(-1, len(self._columns))
            write_beside_tokens(out, "train", "columns", table)
        if len(self._names) < 2:
            return {}
        order = sorted(self._names, key=lambda name: self._names[name])
        for split, numbers in self._sources.items():
            write_beside_tokens(out, split, "sources", np.array(numbers, dtype="<u2"))
        store = TokenStore.open(out, "train")
        lengths = np.diff(store.offsets.astype(np.int64))
        numbers = np.asarray(self._sources["train"])
        return {
            OTHER if name is None else name: {
                "documents": int((numbers == number).sum()),
                "tokens": int(lengths[numbers == number].sum()),
            }
            for number, name in enumerate(order)
        }


def _number(document: Document, column: str) -> float:
    value: Any = document.meta.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    known = sorted(name for name, held in document.meta.items() if isinstance(held, int | float))
    missing = column not in document.meta
    raise DataError(
        f"a document lacks the column {column!r}" if missing else f"the column {column!r} holds no number",
        where=f"document {document.id}",
        found=f"numbers named {', '.join(known) or 'nothing'}" if missing else repr(value),
        expected=f"a finite number as {column!r} in the `meta` of every training document",
        remedy=f"write data.read: {{numbers: [{column}]}}, or correct `columns` of tokenizer.encode",
    )
