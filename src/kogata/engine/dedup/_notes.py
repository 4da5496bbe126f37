"""Notes that methods take of a corpus, shard by shard: in this process, in several, or on a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kogata.core.artifact import SPLITS, Document
from kogata.core.registry import registry
from kogata.engine.dedup._table import Table
from kogata.engine.pool import Spread, Unlimited, through
from kogata.engine.text import read_shard

BATCH_CHARACTERS = 2**19


@dataclass(frozen=True)
class Method:
    """One way to find duplicates: its name, its variant and its settings."""

    name: str
    variant: Any
    settings: Any


@dataclass(frozen=True)
class Shard:
    """One file of a corpus."""

    path: Path
    split: str
    earlier: bool = False

    @property
    def role(self) -> int:
        """Says what its documents are to the judgement."""
        if self.earlier:
            return Table.EARLIER
        return Table.TRAIN if self.split == "train" else Table.HELDOUT


def shards_of(corpus: Path, earlier: Path | None) -> list[Shard]:
    """Lists the shards in the order of the table: test, held-out, the earlier corpus, training."""

    def of(folder: Path, split: str, earlier: bool = False) -> list[Shard]:
        return [Shard(path, split, earlier) for path in sorted(folder.glob(f"{split}-*.jsonl.zst"))]

    held = [shard for split in reversed(SPLITS) if split != "train" for shard in of(corpus, split)]
    before = of(earlier, "train", True) if earlier is not None else []
    return held + before + of(corpus, "train")


def note_shard(shard: Shard, methods: Sequence[Method], folder: Path, tick: Any = lambda: None) -> int:
    """Notes what the methods need of one shard's documents; the folder appears when all is noted.

    It depends on nothing but the shard and the settings, and touches nothing else, so that shards can be
    noted in any order, by any process.

    Args:
        shard: what to read.
        methods: whose notes to take.
        folder: where the notes go.
        tick: called between batches.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    gathers: dict[Any, Any] = {}
    for method in methods:
        kind = method.variant.Gather
        if kind not in gathers:
            gathers[kind] = kind(method.settings, partial)
    sizes: list[int] = [0]
    try:
        with (partial / "ids.bin").open("wb") as ids:
            for batch in _batches(read_shard(shard.path, shard.split)):
                tick()
                for gather in gathers.values():
                    gather.add(batch)
                sizes += [ids.write(document.id.encode("utf-8", "surrogatepass")) for document in batch]
    finally:
        for gather in gathers.values():
            gather.close()
    np.save(partial / "id-starts.npy", np.cumsum(np.array(sizes, dtype=np.int64)))
    partial.rename(folder)
    return len(sizes) - 1


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Task:
    """A shard to take notes of, and where they go; on a cluster the shard itself travels along."""

    shard: Shard
    folder: Path
    content: bytes | None = None


@dataclass(frozen=True)
class Noting(Unlimited):
    """Takes notes of shards; plain values only."""

    methods: tuple[tuple[str, Any], ...]
    """Methods by name, with their settings."""
    stage: ClassVar[str] = "data.dedup"

    def start(self) -> Callable[[Task], tuple[tuple[str, bytes], ...]]:
        """Gives the function that takes notes and returns the files that have to travel back."""
        methods = [
            Method(name, registry.variant("engine.dedup", name), settings) for name, settings in self.methods
        ]

        def note(task: Task) -> tuple[tuple[str, bytes], ...]:
            if task.content is None:
                note_shard(task.shard, methods, task.folder)
                return ()
            with tempfile.TemporaryDirectory(prefix="kogata-notes-") as name:
                place = Path(name)
                shard = Shard(place / task.shard.path.name, task.shard.split, task.shard.earlier)
                shard.path.write_bytes(task.content)
                note_shard(shard, methods, place / "notes")
                return tuple((path.name, path.read_bytes()) for path in sorted((place / "notes").iterdir()))

        return note


def noted_elsewhere(
    shards: Sequence[Shard],
    folders: Sequence[Path],
    missing: Sequence[int],
    methods: Sequence[Method],
    processes: int,
    spread: Spread | None,
) -> Iterator[int]:
    """Yields the number of each missing shard once its notes are in its folder."""
    travels = spread is not None

    def tasks() -> Iterator[Task]:
        for at in missing:
            yield Task(shards[at], folders[at], shards[at].path.read_bytes() if travels else None)

    work = Noting(tuple((method.name, method.settings) for method in methods))
    found = through(tasks(), work, min(processes, max(2, len(missing))), spread, batch=1)
    for at, files in zip(missing, found, strict=True):
        if travels:
            partial = folders[at].with_name(folders[at].name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, content in files:
                (partial / name).write_bytes(content)
            partial.rename(folders[at])
        yield at
