"""Shards: rows as JSON lines per split, packed with zstd, the same bytes every time."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError

SHARD_BYTES = 64 * 2**20


class ShardWriter:
    """Appends rows to `SPLIT-00000.jsonl.zst`, `SPLIT-00001.jsonl.zst` … under a folder.

    Args:
        out: the folder.
        shard_bytes: bytes of JSON after which the next shard begins.
    """

    def __init__(self, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._out, self._shard_bytes = out, shard_bytes
        self._open: dict[str, tuple[Any, Any]] = {}
        self._in_shard: Counter[str] = Counter()
        self._shards: Counter[str] = Counter()

    def write(self, split: str, row: Mapping[str, Any]) -> None:
        """Appends a row to a split."""
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
        if split not in self._open or self._in_shard[split] + len(line) > self._shard_bytes:
            self._next_shard(split)
        self._open[split][0].write(line)
        self._in_shard[split] += len(line)

    def _next_shard(self, split: str) -> None:
        import zstandard

        if split in self._open:
            self._close(split)
        path = self._out / f"{split}-{self._shards[split]:05d}.jsonl.zst"
        file = path.open("wb")
        self._open[split] = (zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False), file)
        self._shards[split] += 1
        self._in_shard[split] = 0

    def _close(self, split: str) -> None:
        writer, file = self._open.pop(split)
        writer.close()
        file.close()

    def close(self) -> None:
        """Finishes all shards."""
        for split in list(self._open):
            self._close(split)


def read_shards(folder: Path, split: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where, row) of one split, in order.

    Args:
        folder: where the shards lie.
        split: which.
        what: the kind of artifact, for the error.

    Raises:
        DataError: a line is not as `ShardWriter` wrote it.
    """
    for shard in sorted(folder.glob(f"{split}-*.jsonl.zst")):
        yield from read_rows(shard, what)


def read_rows(shard: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where, row) of one shard, in order; raises as `read_shards` does."""
    import zstandard

    with shard.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
        lines = io.TextIOWrapper(reader, encoding="utf-8", newline="\n")
        for number, line in enumerate(lines, 1):
            where = f"{shard}, row {number}"
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__} instead of an object")
            except ValueError as error:
                raise damaged(what, where, error) from None
            yield where, row


def damaged(what: str, where: str, error: Exception) -> DataError:
    """Makes the error for a row that is not as it was written."""
    return DataError(f"a damaged {what}", where=where, found=str(error))
