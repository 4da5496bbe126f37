"""Excel workbooks: one document a row of the first sheet, the first row its header.

An .xlsx file is a zip of XML, and reading values alone needs no more than the standard library; a library
for it would bring styles, formulas and writing that nothing here uses.
"""

from __future__ import annotations

import datetime
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import EXPANSION, EXPANSION_FREE, InputFile, Unreadable
from kogata.engine.readers._common import LOOK, ReadOptions, Sample
from kogata.engine.readers.jsonl import rows_to_documents

SUFFIXES = (".xlsx",)

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
"""Built-in number formats that show a date or a time."""
_NOT_DATE = re.compile(r'"[^"]*"|\[(?!h|m|s)[^\]]*\]|\\.')
_EPOCH = datetime.datetime(1899, 12, 30)
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_DIMENSION = re.compile(rb'<(?:\w+:)?dimension\b[^>]*\bref="[A-Z]+(\d+):[A-Z]+(\d+)"')
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ElementTree.ParseError,
    LookupError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
)
"""What reading a damaged or protected workbook raises."""


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields one document a row."""
    yield from rows_to_documents(rows(file, options, account), file, options, account)


def rows(file: InputFile, options: ReadOptions, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the rows below the header by the numbers Excel shows; empty ones are passed over.

    A single filled cell above a wider row is a title, and the wider row the header.
    """
    # What the caller does between two rows is none of the file's faults, so only the steps are guarded.
    steps = _read(file, account)
    while True:
        try:
            item = next(steps)
        except StopIteration:
            return
        except _DAMAGE as error:
            raise Unreadable(
                "an Excel file is damaged",
                where=str(file.path),
                found=f"{type(error).__name__}: {error}",
                expected="an .xlsx workbook without a password (no .xls)",
                remedy="open it in a spreadsheet program and save it again, or as .csv",
            ).because("damaged file") from None
        yield item


def _read(file: InputFile, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with _open(file) as book:
        strings = _strings(book)
        dates = _date_styles(book)
        with book.open(_first_sheet(book)) as sheet:
            yield from _rows(sheet, strings, dates, account)


def _open(file: InputFile) -> zipfile.ZipFile:
    if file.packed:
        raise Unreadable(
            "an Excel file inside another compression",
            where=str(file.path),
            expected="an .xlsx workbook, which is compressed inside",
            remedy=f"unpack it first (remove the {file.packed})",
        ).because("packed workbook")
    book = zipfile.ZipFile(file.path)
    size = sum(part.file_size for part in book.infolist())
    if size > EXPANSION_FREE or size > EXPANSION * file.path.stat().st_size + 2**24:
        raise Unreadable(
            "an Excel file expands beyond measure",
            where=str(file.path),
            found=f"{file.path.stat().st_size} bytes become {size}",
            expected=f"at most {EXPANSION} times its size",
            remedy="save the table as .csv",
        ).because("expands beyond measure")
    return book


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(book.read(name))


def _first_sheet(book: zipfile.ZipFile) -> str:
    sheets = list(_xml(book, "xl/workbook.xml").iter(f"{_MAIN}sheet"))
    shown = [sheet for sheet in sheets if sheet.get("state", "visible") == "visible"]
    named = (shown or sheets)[0].get(_RELATION) if sheets else None
    for relation in _xml(book, "xl/_rels/workbook.xml.rels"):
        if relation.get("Id") == named:
            target = relation.get("Target", "")
            return target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    raise KeyError("no sheet")


def _strings(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(item) for item in _xml(book, "xl/sharedStrings.xml").iter(f"{_MAIN}si")]


def _text(item: ElementTree.Element) -> str:
    """Joins the runs of a text; the reading that Japanese Excel keeps of it (rPh) is no part of it."""
    runs = [item, *item.findall(f"{_MAIN}r")]
    text = "".join(part.text or "" for run in runs for part in run.findall(f"{_MAIN}t"))
    # Excel writes what XML cannot hold, and line ends of old, as _x000D_.
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "_x" in text else text


def _date_styles(book: zipfile.ZipFile) -> set[int]:
    if "xl/styles.xml" not in book.namelist():
        return set()
    styles = _xml(book, "xl/styles.xml")
    dates = set(_DATES)
    for own in styles.iter(f"{_MAIN}numFmt"):
        code = _NOT_DATE.sub("", own.get("formatCode", "")).lower()
        if any(letter in code for letter in "ymdhs") and "general" not in code:
            dates.add(int(own.get("numFmtId", "0")))
    kinds = styles.find(f"{_MAIN}cellXfs")
    listed = list(kinds) if kinds is not None else []
    return {number for number, kind in enumerate(listed) if int(kind.get("numFmtId", "0")) in dates}


def _rows(
    sheet: Any, strings: list[str], dates: set[int], account: Account
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header: dict[int, str] | None = None
    first, number = True, 0
    for _, element in ElementTree.iterparse(sheet):
        if element.tag != f"{_MAIN}row":
            continue
        number = int(element.get("r", number + 1))
        values: dict[int, Any] = {}
        for place, cell in enumerate(element.findall(f"{_MAIN}c")):
            value = _value(cell, strings, dates)
            if value is not None and value != "":
                values[_column(cell.get("r"), place)] = value
        element.clear()
        if not values:
            continue
        if header is None or (first and len(header) == 1 and len(values) > 1):
            header = {column: str(value).strip() for column, value in values.items()}
            continue
        first = False
        row = {name: values.get(column, "") for column, name in header.items()}
        account.read_bytes += sum(len(str(value)) for value in row.values())
        yield number, row


def _column(name: str | None, place: int) -> int:
    """Gives a cell's column from its name (`AB12`), else its place in the row."""
    letters = "".join(char for char in name or "" if char.isalpha()).upper()
    if not letters:
        return place
    number = 0
    for char in letters:
        number = number * 26 + ord(char) - 64
    return number - 1


def _value(cell: ElementTree.Element, strings: list[str], dates: set[int]) -> Any:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inside = cell.find(f"{_MAIN}is")
        return None if inside is None else _text(inside)
    found = cell.find(f"{_MAIN}v")
    text = found.text if found is not None else None
    if text is None or kind == "e":
        return None
    if kind == "s":
        return strings[int(text)]
    if kind == "b":
        return text == "1"
    if kind != "n":
        return text
    value = float(text)
    if int(cell.get("s", "0")) in dates:
        moment = _EPOCH + datetime.timedelta(days=value)
        return str(moment.date() if value == int(value) else moment.replace(microsecond=0))
    return int(value) if value.is_integer() else value


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the whole table: a workbook can only be read from its start, and is small."""
    texts = [document.text for document in read(file, options, Account())]
    text = "\n".join(texts)
    size = len(text.encode("utf-8", "surrogatepass"))
    return Sample(
        read=max(1, file.path.stat().st_size),
        documents=len(texts),
        bytes=size,
        characters=len(text),
        text=text,
        rows=len(texts),
        whole_bytes=size,
    )


def count_rows(file: InputFile, options: ReadOptions) -> float:
    """Gives the rows below the header as the sheet's dimension states them; else by reading it."""
    try:
        with _open(file) as book, book.open(_first_sheet(book)) as sheet:
            stated = _DIMENSION.search(sheet.read(4096))
    except _DAMAGE:
        stated = None
    if stated is not None:
        return float(max(0, int(stated[2]) - int(stated[1])))
    return float(sum(1 for _ in rows(file, options, Account())))
