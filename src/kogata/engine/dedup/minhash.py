"""Near-duplicates: MinHash bands bring candidates together, exact Jaccard similarity decides."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.variants import VariantSettings
from kogata.engine.dedup._sketch import band_keys, bands_for, jaccard, sets_of, sketch
from kogata.engine.dedup._table import Notes, Table
from kogata.engine.pool import Unlimited, through

STREAMS = False
ALL_PAIRS = 16
"""In a band, of so many documents every pair is compared; of more, each with a few that stand for others."""
MOST_STANDING = 48
MOST_KEPT = 256
"""Of one cluster's kept documents, that another is compared with."""
MOST_OPEN = 64
"""Files of sets held open."""
CLUSTER_HANDS = 8
"""Parts that a band's keys are dealt out in on a cluster."""
BYTES_PER_KEY = 40
"""Memory of sorting one band's key."""


class Settings(VariantSettings):
    """Leaves out near-duplicates: documents that share most of their runs of words with one that stays.

    Runs of words, and of characters in Japanese, Chinese, Thai and the like; case, width and punctuation do
    not count. Every document left out was compared with the one it is said to duplicate.
    """

    threshold: float = Field(
        default=0.8, ge=0.3, le=0.99, description="share of runs in common (Jaccard) that makes a duplicate"
    )
    ngram: int = Field(default=5, ge=1, le=50, description="words, or characters, of one run")
    keep: str = Field(
        default="longest",
        description="which of a cluster stays: `longest`, `first`, or a number in the documents' meta, "
        "the highest",
    )


class Gather:
    """Notes each document's set of runs, its band keys and how much it is wanted."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._sets = (folder / "sets.bin").open("wb")
        self._sizes: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._wanted: list[float] = []

    def add(self, documents: Sequence[Document]) -> None:
        """Notes some documents, in order."""
        bands, rows = bands_for(self._settings.threshold)
        values, starts = sets_of([document.text for document in documents], self._settings.ngram)
        self._sets.write(values.tobytes())
        self._sizes.append(np.diff(starts))
        self._keys.append(band_keys(sketch(values, starts, bands * rows), bands, rows))
        self._wanted += [_wanted(document, self._settings.keep) for document in documents]

    def close(self) -> None:
        """Finishes the files."""
        self._sets.close()
        bands, _ = bands_for(self._settings.threshold)
        sizes = np.concatenate([np.zeros(1, dtype=np.int64), *self._sizes])
        np.save(self._folder / "set-starts.npy", np.cumsum(sizes))
        np.save(self._folder / "wanted.npy", np.array(self._wanted, dtype=np.float32))
        keys = np.concatenate([np.zeros((bands, 0), dtype=np.uint64), *self._keys], axis=1)
        np.save(self._folder / "bands.npy", keys)


def _wanted(document: Document, keep: str) -> float:
    if keep == "first":
        return 0.0
    if keep == "longest":
        return float(len(document.text))
    value = document.meta.get(keep)
    return float(value) if isinstance(value, int | float) else float("-inf")


class _Sets:
    """The sets of all documents, read from disk when asked for: what is mapped would count as memory."""

    def __init__(self, notes: Notes) -> None:
        self._first, self._folders = notes.first, notes.folders
        self._starts = [np.load(folder / "set-starts.npy", mmap_mode="r") for folder in notes.folders]
        self._open: dict[int, FileIO] = {}

    def __getitem__(self, row: int) -> np.ndarray:
        shard = int(np.searchsorted(self._first, row, side="right")) - 1
        at = row - int(self._first[shard])
        begin, end = int(self._starts[shard][at]), int(self._starts[shard][at + 1])
        file = self._file(shard)
        file.seek(4 * begin)
        return np.frombuffer(file.read(4 * (end - begin)), dtype="<u4")

    def _file(self, shard: int) -> FileIO:
        if shard not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[shard] = (self._folders[shard] / "sets.bin").open("rb", buffering=0)
        return self._open[shard]

    def sizes(self) -> np.ndarray:
        """Gives the size of every set."""
        return np.concatenate([np.diff(starts) for starts in self._starts]).astype(np.uint32)

    def close(self) -> None:
        """Closes the files."""
        for file in self._open.values():
            file.close()


class _Comparer:
    """Compares two documents once; sizes alone rule many pairs out."""

    def __init__(self, notes: Notes, threshold: float) -> None:
        self._sets, self._threshold = _Sets(notes), threshold
        self.sizes = self._sets.sizes()
        self.compared = 0
        self._unlike: set[tuple[int, int]] = set()
        self._most = max(1000, notes.memory_bytes // 400)

    def close(self) -> None:
        """Closes the files."""
        self._sets.close()

    def similarity(self, a: int, b: int) -> float | None:
        """Gives the similarity where it reaches the threshold, else None."""
        small, large = sorted((int(self.sizes[a]), int(self.sizes[b])))
        if small < self._threshold * large - 1e-9:
            return None
        pair = (a, b) if a < b else (b, a)
        if pair in self._unlike:
            return None
        self.compared += 1
        found = jaccard(self._sets[a], self._sets[b])
        if found >= self._threshold - 1e-9:
            return found
        if len(self._unlike) >= self._most:
            self._unlike.clear()
        self._unlike.add(pair)
        return None


class _Forest:
    """Union-find: which documents hang together."""

    def __init__(self, count: int) -> None:
        self.parent = array("q", range(count))

    def root(self, row: int) -> int:
        """Finds the document that stands for a row's cluster."""
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, a: int, b: int) -> None:
        """Puts two clusters together; the lower number stands for both."""
        a, b = self.root(a), self.root(b)
        self.parent[max(a, b)] = min(a, b)


def decide(settings: Settings, table: Table, notes: Notes) -> None:
    """Drops near-duplicates: clusters by compared pairs, and in each all that resemble one that stays.

    Raises:
        DataError: no document has the number that says which one stays.
    """
    wanted = np.concatenate([np.load(folder / "wanted.npy") for folder in notes.folders])
    if len(wanted) and not np.isfinite(wanted).any():
        raise DataError(
            f"no document has a number called {settings.keep!r} in its meta",
            where="keep of minhash in data.dedup",
            expected="longest, first, or a number that data.read or data.extract put into the meta",
            remedy="correct the name, or leave `keep` out to keep the longest",
        )
    with closing(_Comparer(notes, settings.threshold)) as comparer:
        table.facts["minhash"] = _decide(settings, table, notes, wanted, comparer)


def _decide(
    settings: Settings, table: Table, notes: Notes, wanted: np.ndarray, comparer: _Comparer
) -> dict[str, int]:
    forest = _Forest(len(table.role))
    bands, rows = bands_for(settings.threshold)
    candidates = table.alive & (comparer.sizes > 0)
    left = 0
    for group in _groups(notes, candidates, bands):
        notes.stopping()
        left += _compare(group, comparer, forest)
    clusters = 0
    for members in _clusters(forest, candidates):
        notes.stopping()
        clusters += _keep_best(members, wanted, comparer, table)
    return {
        "bands": bands,
        "rows": rows,
        "compared": comparer.compared,
        "clusters": clusters,
        "not_compared": left,
    }


@dataclass(frozen=True)
class Joining(Unlimited):
    """Brings together the documents that share a key; plain values only, so that any process can do it."""

    stage: ClassVar[str] = "data.dedup"

    def start(self) -> Callable[[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
        """Gives the function from keys and the documents they are of to the documents of each shared key."""
        return lambda part: joined(*part)


def joined(keys: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Gives the documents of every key that several have, in the order of the keys."""
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    return [rows[edges[at] : edges[at + 1]] for at in np.flatnonzero(np.diff(edges) > 1)]


def _groups(notes: Notes, candidates: np.ndarray, bands: int) -> Iterator[list[int]]:
    """Yields the documents that share a key, band by band, in one order however many processes join them.

    A band's keys are dealt out by their size to those that join them, and come back in that order: a
    shuffle, of which no process holds more than its part. Keys are taken in parts that fit the memory.
    """
    parts = max(1, -(-int(notes.first[-1]) * BYTES_PER_KEY // notes.memory_bytes))
    hands = notes.processes if notes.spread is None else CLUSTER_HANDS

    def dealt() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for band in range(bands):
            for part in range(parts):
                for hand in range(hands):
                    yield _dealt(notes, candidates, band, (parts, part), (hands, hand))

    for groups in through(dealt(), Joining(), notes.processes, notes.spread, batch=1):
        for group in groups:
            yield group.tolist()


def _dealt(
    notes: Notes, candidates: np.ndarray, band: int, part: tuple[int, int], hand: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Gives one hand's keys of a part of a band, and the documents they are of."""
    first = notes.first
    found_keys, found_rows = [], []
    for shard, folder in enumerate(notes.folders):
        keys = np.asarray(np.load(folder / "bands.npy", mmap_mode="r")[band])
        mine = candidates[first[shard] : first[shard + 1]]
        if part[0] > 1:
            mine = mine & (keys % np.uint64(part[0]) == part[1])
        if hand[0] > 1:
            mine = mine & ((keys >> np.uint64(32)) * np.uint64(hand[0]) >> np.uint64(32) == hand[1])
        found_keys.append(keys[mine])
        found_rows.append(first[shard] + np.flatnonzero(mine))
    return np.concatenate(found_keys), np.concatenate(found_rows)


def _compare(group: list[int], comparer: _Comparer, forest: _Forest) -> int:
    """Joins what is alike in one group; gives how many documents were left uncompared."""
    if len(group) <= ALL_PAIRS:
        for at, a in enumerate(group):
            for b in group[at + 1 :]:
                if forest.root(a) != forest.root(b) and comparer.similarity(a, b) is not None:
                    forest.join(a, b)
        return 0
    for _ in range(MOST_STANDING):
        if len(group) < 2:
            return 0
        standing, rest = group[0], []
        for row in group[1:]:
            if forest.root(row) == forest.root(standing):
                continue
            if comparer.similarity(standing, row) is not None:
                forest.join(standing, row)
            else:
                rest.append(row)
        group = rest
    return len(group)


def _clusters(forest: _Forest, candidates: np.ndarray) -> Iterator[list[int]]:
    rows = np.flatnonzero(candidates)
    roots = np.array([forest.root(row) for row in rows.tolist()], dtype=np.int64)
    order = np.argsort(roots, kind="stable")
    rows, roots = rows[order], roots[order]
    edges = np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1], [True]]))
    for at in np.flatnonzero(np.diff(edges) > 1):
        yield rows[edges[at] : edges[at + 1]].tolist()


def _keep_best(members: list[int], wanted: np.ndarray, comparer: _Comparer, table: Table) -> int:
    """Keeps the most wanted, then every member that resembles none of those kept; 1 when any went."""
    members.sort(key=lambda row: (table.role[row] == table.TRAIN, -wanted[row], row))
    kept: list[int] = []
    gone: list[tuple[int, int, float]] = []
    for row in members:
        if table.role[row] == table.TRAIN:
            near = ((other, comparer.similarity(other, row)) for other in kept[:MOST_KEPT])
            found = next(((other, value) for other, value in near if value is not None), None)
            if found is not None:
                gone.append((row, *found))
                continue
        kept.append(row)
    rows = np.array([row for row, _, _ in gone], dtype=np.int64)
    of = np.array([other for _, other, _ in gone], dtype=np.int64)
    table.drop("minhash", rows, of, np.array([value for _, _, value in gone], dtype=np.float32))
    return int(bool(gone))
