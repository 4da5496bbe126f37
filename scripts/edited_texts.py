"""Makes src/kogata/data/edited_texts.jsonl.gz: pieces of edited text, a classifier's positives by default.

    python scripts/edited_texts.py FOLDER

FOLDER holds `corpus/speech/us-presidential.jsonl.gz`, `corpus/techdocs/sqlite.jsonl.gz` and
`ja/aozora/aozora.train.jsonl.gz`; the novels are those of the examples. All of it is in the public
domain (see src/kogata/data/NOTICE). The same texts give the same file.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "src" / "kogata" / "data" / "edited_texts.jsonl.gz"
PIECE = 2_000
"""Characters of a piece, about: whole paragraphs."""
NOVELS, SPEECHES, MANUALS, JAPANESE = 5, 60, 60, 80
"""Pieces of each novel, and of the others in all."""


def main() -> None:
    """Writes the file."""
    data = Path(sys.argv[1])
    found: list[dict[str, str]] = []
    for path in sorted((ROOT / "examples" / "data" / "novels").glob("*.txt.gz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        found += pieces(text, NOVELS, language="en", kind="novel", source=path.name.partition(".")[0])
    parts: list[tuple[str, str, str, int]] = [
        ("corpus/speech/us-presidential.jsonl.gz", "speech", "en", SPEECHES),
        ("corpus/techdocs/sqlite.jsonl.gz", "manual", "en", MANUALS),
        ("ja/aozora/aozora.train.jsonl.gz", "story", "ja", JAPANESE),
    ]
    for name, kind, language, count in parts:
        rows = [row for row in rows_of(data / name) if len(row["text"]) > 2 * PIECE]
        # A work of Aozora Bunko keeps its whole credit line, or stays out.
        rows = [
            row
            for row in rows
            if all(part in row.get("credit", "青空文庫 入力") for part in ("青空文庫", "入力"))
        ]
        for at in range(count):
            row = rows[at * len(rows) // count]
            more = {"credit": row["credit"]} if "credit" in row else {}
            found += pieces(row["text"], 1, language=language, kind=kind, source=row["id"], **more)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    OUT.write_bytes(gzip.compress(lines.encode("utf-8"), 9, mtime=0))
    print(f"{len(found)} pieces, {OUT.stat().st_size:,} bytes", file=sys.stderr)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a packed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def pieces(text: str, count: int, **more: str) -> list[dict[str, str]]:
    """Takes pieces evenly from a text, its beginning left out."""
    found = []
    for at in range(count):
        start = text.find("\n", (2 * at + 1) * len(text) // (2 * count)) + 1
        paragraphs = [part.strip() for part in re.split(r"\n+", text[start : start + 3 * PIECE])]
        piece = ""
        for paragraph in filter(None, paragraphs):
            if len(piece) >= PIECE:
                break
            piece = f"{piece}\n{paragraph}" if piece else paragraph
        found.append({"text": piece[: 2 * PIECE], **more})
    return found


if __name__ == "__main__":
    main()
