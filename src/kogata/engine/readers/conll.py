"""CoNLL and CoNLL-U: a token and its tag a line, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile
from kogata.engine.readers._common import (
    LOOK,
    ROWS_LOOK,
    ReadOptions,
    Sample,
    decoder_of,
    head_of,
    lines_of,
    rows_by_head,
)
from kogata.engine.tag_rows import joined

SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")

_DIVIDER = "-DOCSTART-"
"""A line of CoNLL-2003 between articles: no sentence."""


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields each sentence's text, without its tags."""
    for number, row in rows(file, options, account):
        yield Document(f"{file.name}:{number}", joined(row["tokens"])[0], source=file.name)


def rows(file: InputFile, options: ReadOptions, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields sentences as `tokens` and `tags`, each by the number of its first line.

    The first column is the token and the last its tag; of CoNLL-U the second and the fourth (UPOS).
    """
    decoder = decoder_of(file, options)
    with decoder.stream:
        lines = (line for _, line, _ in lines_of(decoder.blocks()))
        yield from _rows(file, lines, account)
    account.read_bytes += decoder.read_bytes


def _rows(file: InputFile, lines: Iterator[str], account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    universal = file.suffix == ".conllu"
    tokens: list[str] = []
    tags: list[str] = []
    first, bad = 0, ""
    number = 0

    def sentence() -> Iterator[tuple[int, Mapping[str, Any]]]:
        if bad:
            account.reject("line without a tag", Document(bad, " ".join(tokens), source=file.name))
        elif tokens:
            yield first, {"tokens": tokens, "tags": tags}

    for number, line in enumerate(lines, 1):
        line = line.strip("\ufeff\r\n")
        if not line.strip():
            yield from sentence()
            tokens, tags, bad = [], [], ""
            continue
        fields = line.split("\t") if "\t" in line.strip() else line.split()
        fields = [field.strip() for field in fields]
        if fields[0] == _DIVIDER or _is_comment(line, fields, universal):
            continue
        if universal and not fields[0].isdigit():
            continue  # A contraction's range, or a token that is not written.
        if not tokens and not bad:
            first = number
        wanted = 4 if universal else 2
        if len(fields) < wanted or not fields[-1]:
            bad = bad or f"{file.name}:{number}"
            tokens.append(fields[1] if universal and len(fields) > 1 else fields[0])
            continue
        tokens.append(fields[1] if universal else fields[0])
        tags.append(fields[3] if universal else fields[-1])
    yield from sentence()


def _is_comment(line: str, fields: list[str], universal: bool) -> bool:
    """Tells a comment from a token `#`, which has its tag behind a tab or as its only neighbour."""
    return line.startswith("#") and (
        universal or (line.startswith("# ") and "\t" not in line and len(fields) != 2)
    )


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the beginning of a file."""
    text, read_bytes = head_of(file, options, look)
    lines = (line for _, line, _ in lines_of(iter([text])))
    found = [row for _, row in _rows(file, lines, Account())]
    texts = [joined(row["tokens"])[0] for row in found]
    return Sample(
        read=read_bytes,
        documents=len(texts),
        bytes=sum(len(one.encode("utf-8", "surrogatepass")) for one in texts),
        characters=sum(map(len, texts)),
        text="\n".join(texts),
    )


def count_rows(file: InputFile, options: ReadOptions) -> float:
    """Estimates the sentences from those in the beginning."""

    def count(lines: list[str], account: Account) -> int:
        return sum(1 for _ in _rows(file, iter(lines), account))

    return rows_by_head(file, options, count, ROWS_LOOK)
