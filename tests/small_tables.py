"""Tables for tests: workbooks as Excel writes them, CSV and JSON lines, in English and Japanese."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACK = "http://schemas.openxmlformats.org/package/2006/relationships"


def write_xlsx(
    path: Path, rows: Sequence[Sequence[Any]], *, first: int = 1, dimension: bool = True, raw: str = ""
) -> Path:
    """Writes a workbook: texts as shared strings, a float as a date, None as no cell.

    Args:
        path: where to.
        rows: cells; the first row stands in row `first`.
        first: the number of the first row.
        dimension: state the table's extent, as Excel does.
        raw: more rows as XML.
    """
    strings: list[str] = []
    lines = []
    for number, row in enumerate(rows, first):
        cells = []
        for column, value in enumerate(row):
            name = f"{chr(65 + column)}{number}"
            if value is None:
                continue
            if isinstance(value, bool):
                cells.append(f'<c r="{name}" t="b"><v>{int(value)}</v></c>')
            elif isinstance(value, float):
                cells.append(f'<c r="{name}" s="1"><v>{value}</v></c>')
            elif isinstance(value, int):
                cells.append(f'<c r="{name}"><v>{value}</v></c>')
            else:
                cells.append(f'<c r="{name}" t="s"><v>{len(strings)}</v></c>')
                strings.append(value)
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    last = first + len(rows) - 1
    extent = f'<dimension ref="A{first}:{chr(64 + max(map(len, rows)))}{last}"/>' if dimension else ""
    sheet = f'<worksheet xmlns="{_MAIN}">{extent}<sheetData>{"".join(lines)}{raw}</sheetData></worksheet>'
    # As Japanese Excel keeps them: the reading of a word (rPh) beside its text, and runs of one text.
    shared = "".join(
        f'<si><r><t xml:space="preserve">{escape(text[:1])}</t></r><r><t xml:space="preserve">'
        f'{escape(text[1:])}</t></r><rPh sb="0" eb="1"><t>ヨミ</t></rPh></si>'
        for text in strings
    )
    parts = {
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_REL}"><sheets>'
        '<sheet name="hidden" sheetId="1" state="hidden" r:id="rId1"/>'
        '<sheet name="表" sheetId="2" r:id="rId2"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACK}">'
        '<Relationship Id="rId1" Target="worksheets/sheet1.xml"/>'
        '<Relationship Id="rId2" Target="/xl/worksheets/sheet2.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><numFmts><numFmt numFmtId="170" '
        'formatCode="yyyy&quot;年&quot;m&quot;月&quot;"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="170"/></cellXfs></styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{_MAIN}">{shared}</sst>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_MAIN}"><sheetData/></worksheet>',
        "xl/worksheets/sheet2.xml": sheet,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in parts.items():
            book.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return path


def write_csv(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8") -> Path:
    """Writes CSV with a header row."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Writes JSON lines; a text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tickets(count: int = 60) -> list[tuple[str, str, str]]:
    """Gives (ticket, question, answer) rows, three of each ticket, all different."""
    return [
        (
            f"T{number // 3}",
            f"注文{number}はいつ届きますか。",
            f"注文{number}は{number % 9 + 1}日後に届きます。",
        )
        for number in range(count)
    ]
