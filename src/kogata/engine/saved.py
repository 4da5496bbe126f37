"""What became of items, kept shard by shard, so that a kill costs at most the shard in hand."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from kogata.engine.pool import Spread, Work, paired

SHARD_ITEMS = 200
SHARD_CHARACTERS = 2**24
"""A shard is written after so many items, or when what is noted of them is so long."""


class SavedWork(Work, Protocol):
    """Work whose outcomes can be written down."""

    def digest(self, item: Any, /) -> int:
        """Gives a number that another item has not."""
        ...

    def size(self, outcome: Any, /) -> int:
        """Gives the characters of its row, about."""
        ...

    def row(self, outcome: Any, /) -> dict[str, Any]:
        """Gives plain values for JSON."""
        ...

    def outcome(self, row: dict[str, Any], /) -> Any:
        """Gives what `row` was made of."""
        ...


def through_and_saved(
    items: Iterable[Any],
    work: SavedWork,
    processes: int,
    folder: Path,
    spread: Spread | None = None,
    batch: int | None = None,
    shard: int | None = None,
) -> Generator[tuple[Any, Any]]:
    """Yields each item and what becomes of it, in order; what the folder knows of before is not done again.

    The items are read again, and each is compared with the one that was worked on: where they differ, the
    rest is done anew.

    Args:
        items: read in this process, one after another.
        work: what is done with each; the same as when the folder was begun.
        processes: how many do it.
        folder: where shards are kept.
        spread: hands batches to a cluster instead.
        batch: items sent at a time.
        shard: items written at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(items)
    number = 0
    # Of the shard in hand.
    digests: list[int] = []
    made: list[Any] = []
    same = True
    while same and (known := _read(folder, number, work)) is not None:
        for digest, outcome in known:
            item = next(stream, None)
            if item is None or work.digest(item) != digest:
                stream = chain([] if item is None else [item], stream)
                same = False
                break
            digests.append(digest)
            made.append(outcome)
            yield item, outcome
        if same:
            number, digests, made = number + 1, [], []
    _forget(folder, number)

    def noted() -> Iterator[Any]:
        for item in stream:
            digests.append(work.digest(item))
            yield item

    characters = sum(map(work.size, made))
    found = paired(noted(), work, processes, spread, batch)
    try:
        for item, outcome in found:
            made.append(outcome)
            characters += work.size(outcome)
            if len(made) >= (shard or SHARD_ITEMS) or characters >= SHARD_CHARACTERS:
                _write(folder, number, digests[: len(made)], made, work)
                del digests[: len(made)]
                number, made, characters = number + 1, [], 0
            yield item, outcome
    finally:
        found.close()
        if made:
            _write(folder, number, digests[: len(made)], made, work)


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.jsonl.zst"


def _write(folder: Path, number: int, digests: list[int], outcomes: list[Any], work: SavedWork) -> None:
    """Writes a shard; it is there whole or not at all."""
    import zstandard

    rows = [{"item": digest, **work.row(outcome)} for digest, outcome in zip(digests, outcomes, strict=True)]
    # A rejected text may hold halves of surrogate pairs; written as escapes, two of them would become one.
    lines = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    partial = folder / "shard.partial"
    partial.write_bytes(zstandard.ZstdCompressor(level=1).compress(lines.encode("utf-8", "surrogatepass")))
    os.replace(partial, _path(folder, number))


def _read(folder: Path, number: int, work: SavedWork) -> list[tuple[int, Any]] | None:
    """Reads a shard; None where there is none, or none that is whole."""
    import zstandard

    try:
        packed = _path(folder, number).read_bytes()
        lines = zstandard.ZstdDecompressor().decompress(packed).decode("utf-8", "surrogatepass")
        rows = [json.loads(line) for line in lines.split("\n") if line]
        return [(row.pop("item"), work.outcome(row)) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, zstandard.ZstdError):
        return None


def _forget(folder: Path, number: int) -> None:
    """Removes what a shard that is no longer true was followed by."""
    for path in folder.glob("shard-*.jsonl.zst"):
        if path >= _path(folder, number):
            path.unlink()
