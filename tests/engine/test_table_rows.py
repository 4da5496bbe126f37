"""Rows of tables: the numbers a spreadsheet shows, workbooks as Excel writes them, rows counted ahead."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from small_tables import write_csv, write_jsonl, write_xlsx

from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.readers import csv, jsonl, xlsx
from kogata.engine.readers._common import ReadOptions

OPTIONS = ReadOptions()


def rows_of(reader: Any, path: Path, **options: Any) -> list[tuple[int, dict[str, Any]]]:
    file = InputFile(path, path.name)
    return [(number, dict(row)) for number, row in reader.rows(file, ReadOptions(**options), Account())]


def test_a_workbook_gives_texts_numbers_and_dates(tmp_path: Path) -> None:
    path = write_xlsx(
        tmp_path / "問い合わせ.xlsx",
        [["質問", "回答", "日付", "件数", "済"], ["届かない & 困る", " 明日です ", 45987.0, 3, True],
         [None, None, None, None, None], ["二つ目", None, 45987.5, None, False]],
    )  # fmt: skip
    assert rows_of(xlsx, path) == [
        (2, {"質問": "届かない & 困る", "回答": " 明日です ", "日付": "2025-11-26", "件数": 3, "済": True}),
        (4, {"質問": "二つ目", "回答": "", "日付": "2025-11-26 12:00:00", "件数": "", "済": False}),
    ]


def test_a_title_above_the_header_and_escapes_are_read(tmp_path: Path) -> None:
    text = '<c r="A9" t="inlineStr"><is><t>a_x000D_\nb</t></is></c>'
    extra = f'<row r="9">{text}<c r="B9" t="e"><v>#REF!</v></c></row>'
    path = write_xlsx(tmp_path / "a.xlsx", [["FAQ 一覧"], ["質問", "回答"], ["q", "a"]], first=3, raw=extra)
    assert rows_of(xlsx, path) == [(5, {"質問": "q", "回答": "a"}), (9, {"質問": "a\r\nb", "回答": ""})]
    one = write_xlsx(tmp_path / "b.xlsx", [["text"], ["first"], ["second"]])
    assert [row["text"] for _, row in rows_of(xlsx, one)] == ["first", "second"]


@pytest.mark.parametrize("damage", ["no zip", "cut", "no string", "no sheet"])
def test_a_damaged_workbook_is_named(tmp_path: Path, damage: str) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [["質問", "回答"], ["q" * 2000, "a"]])
    if damage == "no zip":
        path.write_bytes(b"\xd0\xcf\x11\xe0 an old .xls")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        with zipfile.ZipFile(path) as book:
            parts = {name: book.read(name) for name in book.namelist()}
        del parts["xl/sharedStrings.xml" if damage == "no string" else "xl/worksheets/sheet2.xml"]
        with zipfile.ZipFile(path, "w") as book:
            for name, data in parts.items():
                book.writestr(name, data)
    with pytest.raises(Unreadable, match="an Excel file is damaged") as caught:
        rows_of(xlsx, path)
    assert caught.value.where == str(path) and "save it again" in str(caught.value)


def test_rows_of_csv_have_the_numbers_a_spreadsheet_shows(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv",
        [["質問", "回答"], ["一つ目の\n行です", "a"], ["二つ目", "b"], ["三"], ["四つ目", "d"]],
        "cp932",
    )
    account = Account()
    found = [(number, row["回答"]) for number, row in csv.rows(InputFile(path, path.name), OPTIONS, account)]
    assert found == [(2, "a"), (3, "b"), (5, "d")]
    (rejected,) = account.examples["wrong number of fields"]
    assert rejected["id"] == "a.csv:4" and rejected["value"] == "1 fields, the header has 2"


def test_rows_are_counted_from_the_beginning(tmp_path: Path) -> None:
    table = [
        ["質問", "回答"],
        *([f"質問{n}\n二行目、長さは{'あ' * (n % 40)}", f"答え{n}"] for n in range(3000)),
    ]
    paths = [write_csv(tmp_path / f"{code}.csv", table, code) for code in ("utf-8", "cp932")]
    for path in paths:
        file = InputFile(path, path.name)
        assert csv.count_rows(file, OPTIONS) == 3000, "the whole of a short file"
        assert csv.count_rows(file, OPTIONS, look=40_000) == pytest.approx(3000, rel=0.04)
    objects = [{"q": q, "a": a} for q, a in table[1:]]
    lines = write_jsonl(tmp_path / "a.jsonl", [*objects, "broken", "[1]"])
    assert jsonl.count_rows(InputFile(lines, "a"), OPTIONS) == 3002
    assert jsonl.count_rows(InputFile(lines, "a"), OPTIONS, look=40_000) == pytest.approx(3002, rel=0.04)
    whole = tmp_path / "b.json"
    whole.write_text("\n" + json.dumps(objects, ensure_ascii=False, indent=1), encoding="utf-8")
    assert len(rows_of(jsonl, whole)) == 3000
    assert jsonl.count_rows(InputFile(whole, "b"), OPTIONS) == 3000
    assert jsonl.count_rows(InputFile(whole, "b"), OPTIONS, look=40_000) == pytest.approx(3000, rel=0.04)


@pytest.mark.parametrize("dimension", [True, False])
def test_rows_of_a_workbook_are_counted(tmp_path: Path, dimension: bool) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", [["q", "a"], *([["x", "y"]] * 40)], dimension=dimension)
    assert xlsx.count_rows(InputFile(path, "a"), OPTIONS) == 40
