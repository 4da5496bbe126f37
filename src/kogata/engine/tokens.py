"""Tokens on disk: one flat file of ids per split, memory-mapped, with the start of every document."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.errors import ArtifactError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Gives the narrowest type that holds every id: uint16 up to 65,535 of them, else uint32."""
    return np.dtype("<u2") if vocab_size <= 65_535 else np.dtype("<u4")


def tokenizer_digest(folder: Path) -> str:
    """Names a tokenizer by the content of its `tokenizer.json` (sha256)."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


@dataclass(frozen=True)
class TokenStore:
    """The ids of one split, memory-mapped.

    Attributes:
        ids: every document's ids then the end id, document after document.
        offsets: where each document starts, and last the end of all (uint64, documents + 1).
        sources: the number of each document's source; None where there is but one.
        columns: numbers kept of each document, [documents, columns]; None where none are.
    """

    ids: np.ndarray
    offsets: np.ndarray
    sources: np.ndarray | None = None
    columns: np.ndarray | None = None

    @staticmethod
    def open(path: Path, split: str = "train") -> TokenStore:
        """Opens one split of a tokens folder; an absent split is empty.

        Raises:
            ArtifactError: the ids and the offsets do not belong together.
        """
        index = path / f"{split}-00000.idx.npy"
        if not index.exists():
            return TokenStore(np.zeros(0, dtype="<u2"), np.zeros(1, dtype="<u8"))
        offsets = np.load(index, allow_pickle=False)
        file = path / f"{split}-00000.bin"
        total = int(offsets[-1])
        size = file.stat().st_size
        if total == 0:
            return TokenStore(np.zeros(0, dtype="<u2"), offsets)
        if size not in (2 * total, 4 * total):
            raise ArtifactError(
                "token ids and offsets do not belong together",
                where=str(file),
                found=f"{size} bytes",
                expected=f"{2 * total} or {4 * total} bytes for {total} ids",
                remedy="remove the artifact from the store and run again",
            )
        dtype = np.dtype("<u2") if size == 2 * total else np.dtype("<u4")
        ids = np.memmap(file, dtype=dtype, mode="r", shape=(total,))
        sources, columns = (_beside(path, split, name, len(offsets) - 1) for name in ("sources", "columns"))
        return TokenStore(ids, offsets, sources, columns)

    @property
    def tokens(self) -> int:
        """Gives the number of ids, end ids included."""
        return int(self.offsets[-1])

    @property
    def documents(self) -> int:
        """Gives the number of documents."""
        return len(self.offsets) - 1

    def document(self, number: int) -> np.ndarray:
        """Gives the ids of one document, its end id included."""
        return self.ids[int(self.offsets[number]) : int(self.offsets[number + 1])]


def _beside(path: Path, split: str, name: str, documents: int) -> np.ndarray | None:
    file = path / f"{split}-00000.{name}.npy"
    if not file.exists():
        return None
    found = np.load(file, allow_pickle=False)
    if len(found) != documents:
        raise ArtifactError(
            f"{name} and documents do not belong together",
            where=str(file),
            found=f"{len(found)} entries",
            expected=f"{documents}, one for each document",
            remedy="remove the artifact from the store and run again",
        )
    return found


def write_beside_tokens(out: Path, split: str, name: str, values: np.ndarray) -> None:
    """Writes what is known of every document of a split: `sources` or `columns`."""
    np.save(out / f"{split}-00000.{name}.npy", values, allow_pickle=False)


class TokenWriter:
    """Writes one split: appends documents, then the offsets."""

    def __init__(self, out: Path, split: str, vocab_size: int, end_id: int) -> None:
        self._index = out / f"{split}-00000.idx.npy"
        self._file = (out / f"{split}-00000.bin").open("wb")
        self._end = np.array([end_id], dtype=dtype_for(vocab_size))
        self._offsets = [0]

    def write(self, ids: np.ndarray) -> None:
        """Appends one document's ids and the end id."""
        self._file.write(np.ascontiguousarray(ids, dtype=self._end.dtype).tobytes())
        self._file.write(self._end.tobytes())
        self._offsets.append(self._offsets[-1] + len(ids) + 1)

    @property
    def tokens(self) -> int:
        """Gives the number of ids written, end ids included."""
        return self._offsets[-1]

    def close(self) -> None:
        """Finishes both files."""
        self._file.close()
        np.save(self._index, np.array(self._offsets, dtype="<u8"), allow_pickle=False)
