"""A bench for data.dedup and data.select, and corpora to give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.receipt import Machine
from kogata.core.recipe import Clock
from kogata.core.stage import Share
from kogata.engine.text import CorpusWriter


@dataclass
class DataBench:
    """Keeps what a stage says; asks it to stop after so many looks."""

    folder: Path
    stop_after: int | None = None
    seed: int = 0
    label: str = "the stage"
    share: Share = field(default_factory=Share)
    machine: Machine = field(default_factory=Machine)
    device: str = "cpu"
    said: list[str] = field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        self.out, self.checkpoints = self.folder / "out", self.folder / "checkpoints"
        for place in (self.out, self.checkpoints):
            place.mkdir(parents=True, exist_ok=True)
        self.clock = Clock()

    def stopping(self) -> bool:
        self.looks += 1
        return self.stop_after is not None and self.looks > self.stop_after

    def left(self) -> float | None:
        return None

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        assert total is None or 0 <= done <= total

    def log(self, text: str) -> None:
        self.said.append(text)

    def count(self, **amounts: float) -> None: ...


def data_bench(folder: Path, **more: Any) -> Any:
    """Makes a bench; typed loosely, for it has only what these stages touch."""
    return DataBench(folder, **more)


def corpus_of(folder: Path, documents: Iterable[Document], shard_bytes: int = 2**26) -> Artifact:
    """Writes documents as a corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = CorpusWriter(folder, shard_bytes)
    for document in documents:
        writer.write(document)
    return Artifact(kind=Kind.CORPUS, digest="0" * 64, path=folder, facts=writer.close())
