"""The pool a selector looks at: its items, as often as asked, the target's texts, a model, a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.artifact import Document
from kogata.engine.examples import Example, read_examples
from kogata.engine.pool import Spread, paired
from kogata.engine.saved import through_and_saved
from kogata.engine.select._steps import Arrays, Step, Stepwise
from kogata.engine.text import read_corpus, utf8_length

BATCH_CHARACTERS = 2**19
SHARD_GROUPS = 16
"""Groups after which their scores are written: 8 MB of text."""
PIECE = 2_000
"""Characters of a piece, where long texts are compared with short ones."""


@dataclass(frozen=True)
class Item:
    """A document, or an example with its texts together."""

    id: str
    text: str
    source: Document | Example

    @property
    def answer(self) -> str:
        """What is to be learned of it."""
        return self.source.answer() if isinstance(self.source, Example) else self.text


@dataclass
class Pool:
    """What there is to choose from, and what by."""

    path: Path
    kind: str
    """`corpus` or `examples`."""
    seed: int = 0
    target: list[str] = field(default_factory=list)
    """Texts of the kind that is wanted."""
    model: Path | None = None
    limit_bytes: int = 0
    """How much will stay; selectors that choose one after the other stop there."""
    tick: Callable[[], None] = lambda: None
    """Called between batches; raises when someone asked to stop."""
    say: Callable[[str], None] = lambda text: None
    count: Callable[..., None] = lambda **amounts: None
    processes: int = 1
    """How many score."""
    spread: Spread | None = None
    """Hands the scoring to a cluster instead."""
    folder: Path | None = None
    """Where scores are kept that a kill must not cost."""
    passes: int = 0
    """How many times texts were gone through so far."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why an item is ruled out, where the method says so, by its number."""

    def items(self, split: str = "train") -> Iterator[Item]:
        """Yields the items of a split, in order."""
        if self.kind == "examples":
            for example in read_examples(self.path, split):
                yield Item(example.id, "\n".join(example.texts()), example)
        else:
            for document in read_corpus(self.path, split):
                yield Item(document.id, document.text, document)

    def batches(self) -> Iterator[list[Item]]:
        """Yields the training items in groups of about half a million characters."""
        batch: list[Item] = []
        size = 0
        for item in self.items():
            batch.append(item)
            size += len(item.text)
            if size >= BATCH_CHARACTERS:
                self.tick()
                yield batch
                batch, size = [], 0
        if batch:
            self.tick()
            yield batch

    def mapped(
        self,
        step: Step,
        groups: Iterable[Any] | None = None,
        *,
        here: bool = False,
        shard: int | None = None,
    ) -> Iterator[Arrays]:
        """Yields what a step gives of each group, in order; what was done before a kill is not done again.

        Args:
            step: what is done with a group.
            groups: lists of texts; those of the training items, if not given.
            here: the step is known to this process alone, as one that holds a model is.
            shard: groups after which their arrays are written.
        """
        if groups is None:
            groups = ([item.text for item in batch] for batch in self.batches())
        count, spread = (1, None) if here else (self.processes, self.spread)
        work, self.passes = Stepwise(step), self.passes + 1
        if self.folder is None:
            found = paired(groups, work, count, spread, batch=1)
        else:
            place = self.folder / f"pass-{self.passes}"
            size = shard or (1 if here else SHARD_GROUPS)
            found = through_and_saved(groups, work, count, place, spread, batch=1, shard=size)
        for _, made in found:
            yield made

    @cached_property
    def sizes(self) -> np.ndarray:
        """The bytes of every training item."""
        return np.array([utf8_length(item.text) for item in self.items()], dtype=np.int64)


def pieces_of(text: str, most: int | None = None) -> list[str]:
    """Cuts a text into pieces of equal length, or takes a few of them, evenly spread."""
    count = max(1, round(len(text) / PIECE))
    step = len(text) / count
    chosen = range(count) if most is None or count <= most else [int(i * count / most) for i in range(most)]
    return [piece for at in chosen if (piece := text[int(at * step) : int((at + 1) * step)]).strip()]


def grouped(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yields texts in groups of about half a million characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def chance(*parts: Any) -> np.random.Generator:
    """Makes a source of chance that depends on these numbers alone."""
    return np.random.Generator(np.random.Philox(key=[int(part) for part in parts]))
