"""JSON lines (one object a line), and a JSON file that holds one list of objects."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.readers._common import (
    LOOK,
    ROWS_LOOK,
    ReadOptions,
    Sample,
    decoder_of,
    head_of,
    lines_of,
    rows_by_head,
    sample_of,
    text_column,
)

SUFFIXES = (".jsonl", ".ndjson", ".json")

LARGEST_LIST = 2**28
"""Characters of a JSON list that is held in memory."""


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields one document an object; what is no object with a text is rejected with its line."""
    yield from rows_to_documents(rows(file, options, account), file, options, account)


def rows(file: InputFile, options: ReadOptions, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the numbered objects of a file; what is none is rejected with its line."""
    decoder = decoder_of(file, options)
    with decoder.stream:
        yield from _rows(file, decoder.blocks(), account)
    account.read_bytes += decoder.read_bytes


def _rows(
    file: InputFile, blocks: Iterator[str], account: Account
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines, first = lines_of(blocks), True
    for number, line, cut in lines:
        if cut:
            account.reject("endless line", Document(f"{file.name}:{number}", line[:200], source=file.name))
            continue
        line = line.strip().lstrip("\ufeff")
        if not line:
            continue
        if first and line.startswith("["):
            for place, item in enumerate(_list(file, line, (text for _, text, _ in lines)), 1):
                if isinstance(item, dict):
                    yield place, item
                else:
                    about = Document(f"{file.name}:{place}", str(item)[:200], source=file.name)
                    account.reject("no JSON object", about)
            return
        first = False
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            account.reject(
                "not JSON", Document(f"{file.name}:{number}", line[:200], source=file.name), str(error)
            )
            continue
        if not isinstance(row, dict):
            account.reject("no JSON object", Document(f"{file.name}:{number}", line[:200], source=file.name))
            continue
        yield number, row


def _list(file: InputFile, first: str, more: Iterable[str]) -> list[Any]:
    parts, held = [first, "\n"], 0
    for line in more:
        parts.append(line)
        held += len(line)
        if held > LARGEST_LIST:
            raise Unreadable(
                "a JSON list is too long to hold in memory",
                where=str(file.path),
                found=f"more than {LARGEST_LIST} characters",
                expected="JSON lines: one object a line, no brackets around",
            ).because("too long a list")
    try:
        return json.loads("".join(parts))
    except (ValueError, RecursionError) as error:
        raise Unreadable(
            "not JSON", where=str(file.path), found=str(error), expected="JSON lines, or one list of objects"
        ).because("not JSON") from None


def rows_to_documents(
    rows: Iterable[tuple[int, Mapping[str, Any]]], file: InputFile, options: ReadOptions, account: Account
) -> Iterator[Document]:
    """Turns numbered rows into documents; the first twenty say which column holds the text."""
    waiting: list[tuple[int, Mapping[str, Any]]] = []
    column: str | None = None
    for number, row in rows:
        if column is None:
            waiting.append((number, row))
            if len(waiting) < 20:
                continue
            column = _column(waiting, file, options)
            for item in waiting:
                yield from _document(*item, column, options, file, account)
            continue
        yield from _document(number, row, column, options, file, account)
    if column is None and waiting:
        column = _column(waiting, file, options)
        for item in waiting:
            yield from _document(*item, column, options, file, account)


def _column(rows: list[tuple[int, Mapping[str, Any]]], file: InputFile, options: ReadOptions) -> str:
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    return text_column(names, [row for _, row in rows], options, file)


def _document(
    number: int,
    row: Mapping[str, Any],
    column: str,
    options: ReadOptions,
    file: InputFile,
    account: Account,
) -> Iterator[Document]:
    name, identity = f"{file.name}:{number}", options.columns.get("id")
    if identity is not None and row.get(identity) not in (None, ""):
        name = str(row[identity])
    text = row.get(column)
    if not isinstance(text, str):
        found = "missing" if column not in row else type(text).__name__
        account.reject(f"no text in column {column}", Document(name, "", source=file.name), found)
        return
    yield Document(name, text, source=file.name, meta=_numbers(row, options.numbers))


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Gives a row's numbers of these names; what is no number is left out, and missed by who needs it."""
    found: dict[str, float] = {}
    for name in names:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            value = float(row.get(name))  # type: ignore[arg-type]
            if math.isfinite(value) and not isinstance(row[name], bool):
                found[name] = value
    return found


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the beginning of a file; raises as `read` would when no column holds the text."""
    text, read_bytes = head_of(file, options, look)
    if text.lstrip("\ufeff").startswith("["):
        return Sample(read=read_bytes, documents=0, bytes=read_bytes, characters=len(text), text=text)
    lines = text.split("\n")
    whole = lines[:-1] if len(lines) > 1 else lines
    used = sum(len(line.encode("utf-8", "surrogatepass")) + 1 for line in whole)
    account = Account()
    found = _rows(file, iter([line + "\n" for line in whole]), account)
    texts = [document.text for document in rows_to_documents(found, file, options, account)]
    # The sample is of UTF-8 bytes; in another encoding the file's own bytes are more or fewer.
    scale = len(text.encode("utf-8", "surrogatepass")) / max(1, read_bytes)
    return sample_of(texts, round(used / scale))


def count_rows(file: InputFile, options: ReadOptions, look: int = ROWS_LOOK) -> float:
    """Estimates the objects in a file from its beginning; exact for a short one."""

    def count(lines: list[str], account: Account) -> int:
        text = "".join(lines).lstrip("\ufeff").lstrip()
        if text.startswith("["):
            return _objects_in(text)
        return sum(1 for _ in _rows(file, iter(lines), account))

    return rows_by_head(file, options, count, look)


def _objects_in(text: str) -> int:
    """Counts the whole items of a JSON list that may be cut off."""
    decoder, at, count = json.JSONDecoder(), 1, 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            _, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        count += 1
    return count
