"""The ledger: a run folder's receipts, one line each, only ever appended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kogata.core.receipt import Receipt

NAME = "receipts.jsonl"


class Ledger:
    """Appends receipts to `receipts.jsonl`; a line is written whole or not at all."""

    def __init__(self, folder: Path, invocation: str) -> None:
        self.path, self.invocation = folder / NAME, invocation
        _mend(self.path)

    def append(self, receipt: Receipt) -> None:
        """Writes one receipt and forces it to disk."""
        row = receipt.to_dict() | {"invocation": self.invocation}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Reads every whole line of a run's ledger; a last line cut by a kill is passed over."""
    path = folder / NAME
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def read_receipts(folder: Path, *, last: bool = True) -> list[Receipt]:
    """Reads a run's receipts: with `last`, the newest of each label that counts as its result."""
    rows = read_rows(folder)
    if not last:
        return [Receipt.from_dict(row) for row in rows]
    newest: dict[tuple[str | None, str], dict[str, Any]] = {}
    for row in rows:
        place = (row.get("parent"), row["label"])
        newest.pop(place, None)
        newest[place] = row
    return [Receipt.from_dict(row) for row in newest.values()]


def _mend(path: Path) -> None:
    """Cuts off a last line that a kill left unfinished."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        keep = content.rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(keep)
