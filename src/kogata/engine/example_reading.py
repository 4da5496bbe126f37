"""Reading examples: files of rows in, examples by split out, and every row that could not be read counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from kogata.core.amounts import counted
from kogata.core.artifact import SPLITS, Document
from kogata.core.errors import DataError
from kogata.core.stage import Account, Facts
from kogata.engine.columns import (
    LOOKED_AT,
    Columns,
    check_asked,
    could_be_corpus,
    map_columns,
    unknown_columns,
)
from kogata.engine.conversation import Problem
from kogata.engine.example_rows import RowProblem, RowReader, at
from kogata.engine.example_split import question_hash, split_examples
from kogata.engine.examples import Example
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.hub import PREFIX, hub_columns, hub_file, hub_rows
from kogata.engine.readers._common import ReadOptions
from kogata.engine.text import documents_of, input_files, readers

PROBLEMS_KEPT = 3
"""Rows shown of each reason, in the facts."""

SPREADSHEETS = (".xlsx",)
"""Files whose cells hold numbers where a person typed digits."""

Paths = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What to read, and how.

    Attributes:
        path: files to train on.
        heldout, test: a share, or other files.
        columns: role → header.
        system: the system message of rows without one.
        group: the header that names a row's group.
        encoding, split_on: as for text files.
    """

    path: Paths
    heldout: float | Paths = 0.0
    test: float | Paths = 0.0
    columns: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    group: str | None = None
    encoding: str = "auto"
    split_on: str | None = None

    @property
    def where(self) -> str:
        """Names what is read, for messages."""
        return self.path if isinstance(self.path, str) else ", ".join(self.path)


@dataclass(kw_only=True)
class Gathered:
    """What was read."""

    splits: dict[str, list[Example]] = field(default_factory=dict)
    problems: list[RowProblem] = field(default_factory=list)
    columns: dict[str, Columns] = field(default_factory=dict)
    """File → how its columns were taken."""
    rows: int = 0
    """Rows looked at, those with problems included."""
    also_heldout: int = 0
    """Training rows left out because their question, or their group, is held out by name."""
    mended: int = 0
    begun: int = 0
    """Entities whose first tag is I-: read as IOB1 writes them."""
    read_bytes: int = 0

    @property
    def examples(self) -> Iterator[tuple[str, Example]]:
        """Yields (split, example)."""
        for split in SPLITS:
            for example in self.splits.get(split, ()):
                yield split, example

    @cached_property
    def reasons(self) -> Counter[str]:
        """Counts the rows that could not be read by reason."""
        return Counter(problem.reason for problem in self.problems)

    def mapped(self) -> dict[str, str]:
        """Gives role → header; of files that differ, all of them."""
        found: dict[str, list[str]] = {}
        for columns in self.columns.values():
            for role, header in columns.roles.items():
                if header not in found.setdefault(role, []):
                    found[role].append(header)
        return {role: " | ".join(headers) for role, headers in found.items()}

    def lines(self) -> list[str]:
        """Says what was mapped and what could not be read."""
        said = dict.fromkeys(columns.said for columns in self.columns.values())
        found = [f"columns: {line}" for line in said]
        for reason, count in self.reasons.most_common():
            first = next(problem for problem in self.problems if problem.reason == reason)
            found.append(
                f"{count:,} of {counted(self.rows, 'row')} could not be read: {reason}, "
                f"first {first.source}, field {first.field or '–'}: found {first.found}; "
                f"expected {first.expected}; {first.remedy}"
            )
        if self.also_heldout:
            found.append(f"held out by name as well, so not trained on: {counted(self.also_heldout, 'row')}")
        if self.mended:
            found.append(f"mended undecodable characters (U+FFFD) in {counted(self.mended, 'field')}")
        if self.begun:
            found.append(f"tags: {counted(self.begun, 'span')} with I- first, read as beginning there (IOB1)")
        return found

    def account(self) -> Facts:
        """Gives the account that receipts and reports show."""
        account = Account()
        account.read, account.read_bytes = self.rows, self.read_bytes
        for _, example in self.examples:
            account.keep(Document(example.id, "\n".join(example.texts())))
        for problem in self.problems:
            about = Document(problem.source, "", source=problem.source)
            account.reject(problem.reason, about, f"{problem.field}: {problem.found}")
        if self.also_heldout:
            account.reasons["also held out"] = self.also_heldout
            account.reason_bytes["also held out"] = 0
        shown: Counter[str] = Counter()
        rows = []
        for problem in self.problems:
            shown[problem.reason] += 1
            if shown[problem.reason] <= PROBLEMS_KEPT:
                rows.append(problem.to_dict())
        if rows:
            account.extra["problems"] = rows
        if self.mended:
            account.extra["mended_fields"] = self.mended
        return account.to_dict()


def gather(reading: Reading, *, most_bytes: int | None = None) -> Gathered:
    """Reads rows and splits them.

    Args:
        reading: what, and how.
        most_bytes: stop after about so many bytes of text of each file; for a look at the beginning.

    Raises:
        DataError: nothing can be read, the columns cannot be told, or rows are too few to hold some out.
    """
    found = Gathered()
    taken: set[Path] = set()
    named: set[int] = set()
    groups: set[str] = set()
    shares: dict[str, float] = {}
    for split, apart in (("test", reading.test), ("heldout", reading.heldout)):
        if isinstance(apart, float | int):
            shares[split] = float(apart)
            continue
        rows = list(_examples(apart, reading, found, taken, most_bytes))
        if not rows:
            raise _nothing(found, apart, f"nothing to read for {split}")
        found.splits[split] = rows
        named |= {question_hash(example) for example in rows}
        groups |= {example.group for example in rows if example.group is not None}
    rows = list(_examples(reading.path, reading, found, taken, most_bytes))
    if named:
        kept = [row for row in rows if question_hash(row) not in named and row.group not in groups]
        found.also_heldout = len(rows) - len(kept)
        rows = kept
    if not rows:
        raise _nothing(found, reading.path, "no row to train on")
    found.splits |= split_examples(rows, shares, where=reading.where)
    return found


def _nothing(found: Gathered, paths: Paths, what: str) -> DataError:
    counted = [f"{count} × {reason}" for reason, count in found.reasons.most_common()]
    first = found.problems[0] if found.problems else None
    return DataError(
        what,
        where=(paths if isinstance(paths, str) else ", ".join(paths))
        + (f", first {first.source}, field {first.field}" if first else ""),
        found="; ".join(counted) + (f"; first: {first.found}" if first else "") or "no rows",
        expected=first.expected if first else "at least one row",
        remedy=first.remedy if first else "give a file with rows in it",
    )


def _examples(
    paths: Paths, reading: Reading, found: Gathered, taken: set[Path], most_bytes: int | None
) -> Iterator[Example]:
    for path in [paths] if isinstance(paths, str) else paths:
        if path.startswith(PREFIX):
            rows = _limited(hub_rows(path), found, most_bytes)
            yield from _of_rows(rows, hub_file(path), reading, found)
            continue
        for file in input_files(path):
            if file.path.resolve() in taken:
                continue
            taken.add(file.path.resolve())
            try:
                yield from _of_file(file, reading, found, most_bytes)
            except Unreadable as error:
                if Path(path).is_file():
                    raise
                problem = Problem(
                    field="",
                    reason=error.reason,
                    found=error.found or error.what,
                    expected=error.expected or "a readable file",
                    remedy=error.remedy or "leave it out of the path",
                )
                found.problems.append(at(problem, file.name))


def _of_file(file: InputFile, reading: Reading, found: Gathered, most_bytes: int | None) -> Iterator[Example]:
    reader = readers()[file.suffix]
    options = ReadOptions(encoding=reading.encoding, split_on=reading.split_on)
    account = Account(examples_kept=10**9)
    if hasattr(reader, "rows"):
        with closing(reader.rows(file, options, account)) as rows:
            yield from _of_rows(_limited(rows, found, most_bytes), file, reading, found)
    else:
        for document in documents_of([file], options, account, named=True):
            found.rows += 1
            yield Example(id=document.id, form="text", source=document.source, fields={"text": document.text})
    found.read_bytes += account.read_bytes
    for reason, shown in account.examples.items():
        found.rows += len(shown)
        expected, remedy = _EXPECTED.get(reason, ("text", "mend it, or leave it out"))
        found.problems += [
            RowProblem(
                source=row.get("id") or file.name,
                field="",
                reason=reason,
                found=_shown(row),
                expected=expected,
                remedy=remedy,
            )
            for row in shown
        ]


def _shown(row: Mapping[str, Any]) -> str:
    """Shows why a row was rejected, and its beginning."""
    why, text = str(row.get("value") or ""), " ".join(str(row.get("text") or "").split())
    text = text if len(text) <= 60 else text[:59] + "…"
    return ": ".join(part for part in (why, text) if part)


_EXPECTED = {
    "not JSON": ("one JSON object a line", "mend the line: quotes and brackets closed, no comma at the end"),
    "no JSON object": ("an object: {…}", "write each row as an object with named fields"),
    "bad CSV row": ("fields between commas", 'put fields with quotes or line breaks into "…"'),
    "wrong number of fields": ("as many fields as the header has", 'put fields with commas into "…"'),
    "line without a tag": (
        "a token and its tag, a blank line between sentences",
        "add the tag, or a blank line",
    ),
    "endless line": ("a line of less than 8 million characters", "cut the row"),
}


def _limited(
    rows: Iterable[tuple[int, Mapping[str, Any]]], found: Gathered, most_bytes: int | None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    seen = 0
    for number, row in rows:
        found.rows += 1
        yield number, row
        if most_bytes is not None:
            seen += sum(len(str(value)) for value in row.values())
            if seen > most_bytes:
                return


def _of_rows(
    rows: Iterable[tuple[int, Mapping[str, Any]]], file: InputFile, reading: Reading, found: Gathered
) -> Iterator[Example]:
    """Makes examples of numbered rows; the first twenty say which column is which."""
    stream = iter(rows)
    ahead = [item for _, item in zip(range(LOOKED_AT), stream, strict=False)]
    if not ahead:
        return
    columns = columns_of([row for _, row in ahead], reading, str(file.path))
    if columns is None:
        raise unknown_columns(_names(ahead), [row for _, row in ahead], str(file.path))
    if columns.form in ("label", "text", "tags") and reading.system is not None:
        raise DataError(
            "a system message has no place in these rows",
            where="system of data.read",
            found=f"rows read as {columns.form}: {columns.said}",
            expected="prompt and completion, or messages",
            remedy="leave `system` out, or name the columns: {prompt: …, completion: …}",
        )
    found.columns[file.name] = columns
    cells = file.suffix in SPREADSHEETS
    reader = RowReader(columns, system=reading.system, group=reading.group, cells=cells)
    for part in (ahead, stream):
        for number, row in part:
            made = reader.make(row, f"{file.name}:{number}")
            if isinstance(made, RowProblem):
                found.problems.append(made)
            else:
                yield made
    found.mended += reader.mended
    found.begun += reader.begun


def _names(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(str(name) for _, row in rows for name in row))


def columns_of(rows: Sequence[Mapping[str, Any]], reading: Reading, where: str) -> Columns | None:
    """Maps the columns of a table from its first rows; None where they cannot be told.

    Raises:
        DataError: a header the user named is not there.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    check_asked(names, rows, reading.columns, where)
    if reading.group is not None:
        check_asked(names, rows, {"group": reading.group}, where)
    return map_columns(names, rows, reading.columns)


def finds_examples(reading: Reading) -> tuple[bool, str]:
    """Says whether files hold examples rather than text, by the columns of the first table, and why.

    A column of text beside one of labels is a corpus, unless the recipe says otherwise: many corpora carry
    the kind or the source of a text so.

    Raises:
        DataError: a path names nothing.
    """
    asked = set(reading.columns) - {"text", "id"}
    if asked or reading.system is not None or reading.group is not None:
        named = ", ".join(sorted(asked)) or "system or group"
        return True, f"{named} is set"
    if "text" in reading.columns:
        return False, "only the text's column is named"
    for path in [reading.path] if isinstance(reading.path, str) else reading.path:
        if path.startswith(PREFIX):
            columns = map_columns(hub_columns(path), [], {})
            if columns is not None and columns.form != "text":
                return True, columns.said
            continue
        for file in input_files(path):
            stamp = file.path.stat()
            rows = _first_rows(file, reading.encoding, stamp.st_mtime_ns, stamp.st_size)
            if rows is None:
                continue
            columns = columns_of(rows, replace(reading, columns={}), str(file.path)) if rows else None
            names = list(dict.fromkeys(str(name) for row in rows for name in row))
            if columns is None and len(names) > 1:
                raise unknown_columns(names, rows, str(file.path))
            if columns is None or columns.form == "text":
                return False, f"{file.name} has no columns of prompts, answers or labels"
            if columns.form == "label" and could_be_corpus(columns):
                text, label = columns.roles["text"], columns.roles["label"]
                said = f"kind: examples would take {label!r} as the label"
                return False, f"{file.name} has a column {text!r}; {said}"
            return True, f"{file.name}: {columns.said}"
    return False, "text files"


@lru_cache(maxsize=32)
def _first_rows(file: InputFile, encoding: str, changed_ns: int, size: int) -> list[Mapping[str, Any]] | None:
    """Gives the first rows of a table; None of what is none or cannot be read. Wiring asks several times."""
    reader = readers()[file.suffix]
    if not hasattr(reader, "rows"):
        return None
    try:
        with closing(reader.rows(file, ReadOptions(encoding=encoding), Account())) as stream:
            return [row for (_, row), _ in zip(stream, range(LOOKED_AT), strict=False)]
    except Unreadable:
        return None
