"""Survey: what reading files will give and cost, from their sizes and the beginnings of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kogata.engine.files import InputFile, Unreadable
from kogata.engine.readers._common import ReadOptions, Sample
from kogata.engine.text import language_hint, readers

SAMPLED_FILES = 12
SAMPLED_BYTES = 2**20
"""Looked at in all, shared among the files looked into."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What files hold, estimated."""

    files: int
    disk_bytes: int
    raw_bytes: int
    """After decompression."""
    documents: int
    bytes: int
    """UTF-8 bytes of text."""
    characters: int
    language: str

    @staticmethod
    def of_size(documents: int, size: int) -> Survey:
        """Builds a survey where only the size is known."""
        return Survey(
            files=1,
            disk_bytes=size,
            raw_bytes=size,
            documents=documents,
            bytes=size,
            characters=size,
            language="und",
        )

    def part(self, share: float) -> dict[str, int]:
        """Gives the facts of a split that takes a share."""
        return {
            "documents": max(1, round(self.documents * share)),
            "bytes": round(self.bytes * share),
            "characters": round(self.characters * share),
        }


def survey(files: Sequence[InputFile], options: ReadOptions, *, named: bool) -> Survey:
    """Estimates what files hold; reads at most about a megabyte of them.

    Raises:
        DataError: a file in the sample is no text, or its text column cannot be told.
    """
    known = readers()
    raw = {file.path: file.raw_bytes() for file in files}
    samples: list[tuple[InputFile, Sample]] = []
    step = max(1, len(files) // SAMPLED_FILES)
    chosen = files[::step][:SAMPLED_FILES]
    for file in chosen:
        try:
            sample = known[file.suffix].sample(file, options, SAMPLED_BYTES // len(chosen))
            samples.append((file, sample))
        except Unreadable:
            if named:
                raise
    documents = size = characters = 0.0
    for suffix in {file.suffix for file in files}:
        total = sum(raw[file.path] for file in files if file.suffix == suffix)
        count = sum(file.suffix == suffix for file in files)
        seen = [sample for file, sample in samples if file.suffix == suffix]
        looked = sum(sample.read for sample in seen)
        if not looked:
            continue
        text = sum(sample.bytes for sample in seen)
        found = sum(sample.documents for sample in seen)
        letters = sum(sample.characters for sample in seen)
        if seen[0].whole_bytes is not None:
            text_bytes = sum(sample.whole_bytes or 0 for sample in seen) * count / len(seen)
            documents += sum(sample.rows or 0 for sample in seen) * count / len(seen)
        else:
            text_bytes = total * text / looked
            documents += total * found / looked if found else count
        size += text_bytes
        characters += text_bytes * letters / max(1, text)
    return Survey(
        files=len(files),
        disk_bytes=sum(file.path.stat().st_size for file in files),
        raw_bytes=sum(raw.values()),
        documents=max(1, round(documents)),
        bytes=round(size),
        characters=round(characters),
        language=language_hint("\n".join(sample.text[:4000] for _, sample in samples)),
    )


def merged(found: Sequence[Survey]) -> Survey:
    """Adds surveys of several paths; the largest says the language."""
    return Survey(
        files=sum(item.files for item in found),
        disk_bytes=sum(item.disk_bytes for item in found),
        raw_bytes=sum(item.raw_bytes for item in found),
        documents=sum(item.documents for item in found),
        bytes=sum(item.bytes for item in found),
        characters=sum(item.characters for item in found),
        language=max(found, key=lambda item: item.bytes).language,
    )
