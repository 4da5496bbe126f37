"""What became of pages, kept shard by shard, so that a kill costs at most the shard in hand."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from kogata.core.artifact import Document
from kogata.engine.web.convert import Converter, Outcome
from kogata.engine.web.page import Page
from kogata.engine.web.pool import Spread, convert

SHARD_PAGES = 200
SHARD_CHARACTERS = 2**24
"""A shard is written after so many pages, or when their texts are so long."""


def convert_and_save(
    pages: Iterable[Page], converter: Converter, processes: int, folder: Path, spread: Spread | None = None
) -> Generator[Outcome]:
    """Yields what becomes of each page, in order; what the folder knows of before is not done again.

    The pages are read again, which takes a small part of the time, and each is compared with the one that
    was converted: where they differ, the rest is done anew.

    Args:
        pages: read in this process, one after another.
        converter: what is done with each; the same as when the folder was begun.
        processes: how many convert.
        folder: where shards are kept.
        spread: hands batches to a cluster instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(pages)
    number = 0
    # Of the shard in hand.
    digests: list[int] = []
    made: list[Outcome] = []
    same = True
    while same and (shard := _read(folder, number)) is not None:
        for digest, outcome in shard:
            page = next(stream, None)
            if page is None or _digest(page) != digest:
                stream = chain([] if page is None else [page], stream)
                same = False
                break
            digests.append(digest)
            made.append(outcome)
            yield outcome
        if same:
            number, digests, made = number + 1, [], []
    _forget(folder, number)

    def noted() -> Iterator[Page]:
        for page in stream:
            digests.append(_digest(page))
            yield page

    characters = sum(len(outcome.document.text) for outcome in made)
    found = convert(noted(), converter, processes, spread)
    try:
        for outcome in found:
            made.append(outcome)
            characters += len(outcome.document.text)
            if len(made) >= SHARD_PAGES or characters >= SHARD_CHARACTERS:
                _write(folder, number, digests[: len(made)], made)
                del digests[: len(made)]
                number, made, characters = number + 1, [], 0
            yield outcome
    finally:
        found.close()
        if made:
            _write(folder, number, digests[: len(made)], made)


def _digest(page: Page) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(
        page.content, xxhash.xxh3_64_intdigest(page.id.encode("utf-8", "replace"))
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"pages-{number:06d}.jsonl.zst"


def _write(folder: Path, number: int, digests: list[int], outcomes: list[Outcome]) -> None:
    """Writes a shard; it is there whole or not at all."""
    import zstandard

    rows: list[dict[str, Any]] = []
    for digest, outcome in zip(digests, outcomes, strict=True):
        rows.append({"page": digest, **asdict(outcome)})
    # A rejected text may hold halves of surrogate pairs; written as escapes, two of them would become one.
    lines = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    partial = folder / "pages.partial"
    partial.write_bytes(zstandard.ZstdCompressor(level=1).compress(lines.encode("utf-8", "surrogatepass")))
    os.replace(partial, _path(folder, number))


def _read(folder: Path, number: int) -> list[tuple[int, Outcome]] | None:
    """Reads a shard; None where there is none, or none that is whole."""
    import zstandard

    try:
        packed = _path(folder, number).read_bytes()
        lines = zstandard.ZstdDecompressor().decompress(packed).decode("utf-8", "surrogatepass")
        rows = [json.loads(line) for line in lines.split("\n") if line]
        return [(row.pop("page"), Outcome(document=Document(**row.pop("document")), **row)) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, zstandard.ZstdError):
        return None


def _forget(folder: Path, number: int) -> None:
    """Removes what a shard that is no longer true was followed by."""
    for path in folder.glob("pages-*.jsonl.zst"):
        if path >= _path(folder, number):
            path.unlink()
