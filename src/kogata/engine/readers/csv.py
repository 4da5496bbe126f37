"""CSV and TSV with a header row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile
from kogata.engine.readers._common import (
    LONGEST,
    LOOK,
    ROWS_LOOK,
    ReadOptions,
    Sample,
    decoder_of,
    head_of,
    lines_of,
    rows_by_head,
    sample_of,
)
from kogata.engine.readers.jsonl import rows_to_documents

SUFFIXES = (".csv", ".tsv", ".tab")


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields one document a row; a row with more or fewer fields than the header is rejected."""
    yield from rows_to_documents(_read(file, options, account), file, options, account)


def rows(file: InputFile, options: ReadOptions, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields rows by the numbers a spreadsheet shows: the header is row 1, a field may hold line breaks."""
    yield from _read(file, options, account, records=True)


def _read(
    file: InputFile, options: ReadOptions, account: Account, *, records: bool = False
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = decoder_of(file, options)
    with decoder.stream:
        lines = (line for _, line, _ in lines_of(decoder.blocks()))
        yield from _rows(file, lines, account, records=records)
    account.read_bytes += decoder.read_bytes


def _rows(
    file: InputFile, lines: Iterable[str], account: Account, *, records: bool = False
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(LONGEST)
    lines = iter(lines)
    first = next((line for line in lines if line.strip("\ufeff \r\n")), "")
    separator = _separator(first, file)
    rows = csv.reader(_chain(first.lstrip("\ufeff"), lines), delimiter=separator)
    header: list[str] | None = None
    record = 0
    while True:
        record += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            place = record if records else rows.line_num
            account.reject("bad CSV row", Document(f"{file.name}:{place}", "", source=file.name), str(error))
            continue
        number = record if records else rows.line_num
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            continue
        if len(row) != len(header):
            text = separator.join(row)
            account.reject(
                "wrong number of fields",
                Document(f"{file.name}:{number}", text[:200], source=file.name),
                f"{len(row)} fields, the header has {len(header)}",
            )
            continue
        yield number, dict(zip(header, row, strict=True))


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    for line in lines:
        yield line.replace("\0", "") if "\0" in line else line


def _separator(header: str, file: InputFile) -> str:
    if file.suffix in (".tsv", ".tab"):
        return "\t"
    return max(",;\t", key=header.count)


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the beginning of a file; raises as `read` would when no column holds the text."""
    text, read_bytes = head_of(file, options, look)
    account = Account()
    lines = [line + "\n" for line in text.split("\n")]
    whole = lines[:-1] if len(lines) > 2 else lines
    texts = [
        document.text
        for document in rows_to_documents(_rows(file, iter(whole), account), file, options, account)
    ]
    used = len("".join(whole)) / max(1, len(text))
    return sample_of(texts, round(read_bytes * used))


def count_rows(file: InputFile, options: ReadOptions, look: int = ROWS_LOOK) -> float:
    """Estimates the rows below the header from the beginning of a file; exact for a short one."""

    def count(lines: list[str], account: Account) -> int:
        return sum(1 for _ in _rows(file, iter(lines), account, records=True))

    return rows_by_head(file, options, count, look)
