"""Documents from files of every format; corpora written and read back; languages guessed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.stage import Account
from kogata.engine.readers import _common
from kogata.engine.readers._common import ReadOptions
from kogata.engine.text import (
    CorpusWriter,
    documents_of,
    input_files,
    language_hint,
    read_corpus,
    read_documents,
    seal_documents,
    spaced,
)

JAPANESE = "ある日の暮方の事である。一人の下人が、羅生門の下で雨やみを待っていた。\n"


def read(
    path: Path | Sequence[str], *, named: bool = False, **options: Any
) -> tuple[list[Document], Account]:
    account = Account()
    files = input_files(str(path) if isinstance(path, Path) else path)
    return list(documents_of(files, ReadOptions(**options), account, named=named)), account


def texts(path: Path, **options: Any) -> list[str]:
    return [document.text for document in read(path, **options)[0]]


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    wanted = ["One, two.", JAPANESE.strip(), 'with "quotes", commas\nand lines']
    rows = [{"n": number, "text": text} for number, text in enumerate(wanted)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    quoted = "\n".join(f'{row["n"]},"{str(row["text"]).replace(chr(34), chr(34) * 2)}"' for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode("cp932")))
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (tmp_path / "d.csv").write_text("n,text\n" + quoted + "\n", encoding="utf-8-sig")
    (tmp_path / "e.csv").write_bytes(("n;text\r\n" + quoted.replace(",", ";", 1)).encode("cp932"))
    (tmp_path / "f.tsv").write_text("n\ttext\n0\tOne, two.\n", encoding="utf-16")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "g.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.csv", "g.parquet"):
        assert texts(tmp_path / name) == wanted, name
    assert texts(tmp_path / "f.tsv") == wanted[:1]


def test_a_text_file_is_one_document_unless_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\ntwo\r\n\r\nthree<|endoftext|>四\r".encode())
    assert texts(path) == ["one\ntwo\n\nthree<|endoftext|>四\n"]
    assert texts(path, split_on="line") == ["one", "two", "three<|endoftext|>四"]
    assert texts(path, split_on="blank_line") == ["one\ntwo", "three<|endoftext|>四"]
    assert texts(path, split_on="<|endoftext|>") == ["one\ntwo\n\nthree", "四"]
    names = [document.id for document in read(path, split_on="line")[0]]
    assert names == ["a.txt:1", "a.txt:2", "a.txt:4"]


def test_names_do_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    for folder in ("here", "there/deeper"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "a.txt").write_text("text", encoding="utf-8")
        found, _ = read(tmp_path / folder)
        assert [(document.id, document.source) for document in found] == [("sub/a.txt", "sub/a.txt")]


def test_a_folder_is_read_in_order_without_what_is_no_text(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "NOTICE", ".hidden.txt", "c.png"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert texts(tmp_path) == ["a.md", "b.txt"]


def test_unreadable_files_are_counted_in_a_folder_and_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(JAPANESE, encoding="euc_jp")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "broken.txt.gz").write_bytes(gzip.compress(JAPANESE.encode() * 100)[:60])
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    found, account = read(tmp_path)
    assert [document.text for document in found] == [JAPANESE]
    assert account.reasons == {"binary file": 1, "damaged file": 2, "empty": 1}
    assert account.examples["binary file"][0]["id"] == "picture.txt"
    with pytest.raises(DataError, match="this is not a text file") as caught:
        read(tmp_path / "picture.txt", named=True)
    assert caught.value.found == "a PNG picture" and "picture.txt" in str(caught.value.where)


def test_undecodable_bytes_are_counted_never_silent(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_bytes(JAPANESE.encode() * 100 + b"\xff" + JAPANESE.encode() * 100)
    (tmp_path / "many.txt").write_bytes(b"\xff\xfe\xfd abc" * 20)
    found, account = read(tmp_path, encoding="utf-8")
    assert [document.id for document in found] == ["few.txt"]
    assert found[0].text.count("\ufffd") == 1
    assert account.reasons == {"undecodable bytes": 1}
    assert account.extra == {"mended_documents": 1, "undecodable_bytes": 61}


def test_rows_that_are_none_are_rejected_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "good"}\n{"text": \n[1]\n{"text": 5}\n{"other": "x"}\n\n{"text": "  "}\n'
        '{"text": "sur\\ud800rogate\\u0000"}\n',
        encoding="utf-8",
    )
    found, account = read(path)
    assert [document.text for document in found] == ["good", "sur\ufffdrogate"]
    assert account.reasons == {
        "not JSON": 1, "no JSON object": 1, "no text in column text": 2, "empty": 1
    }  # fmt: skip
    assert account.examples["not JSON"][0]["id"] == "a.jsonl:2"
    assert account.extra == {"mended_documents": 1, "lone_surrogates": 1, "nul_characters": 1}


def test_csv_rows_with_too_many_fields_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,one\n2,two,three\n3\n4,four\n", encoding="utf-8")
    found, account = read(path, columns={"id": "id"})
    assert [(document.id, document.text) for document in found] == [("1", "one"), ("4", "four")]
    assert account.reasons == {"wrong number of fields": 2}
    assert account.examples["wrong number of fields"][0]["value"] == "3 fields, the header has 2"


def test_an_unknown_header_is_shown_with_a_line_to_paste(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("番号,題,内容文\n1,羅生門,ある日の暮方の事である。一人の下人が\n", encoding="cp932")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == "\n".join(
        [
            "which column holds the text?",
            f"  at: {path}",
            "  found: columns: 番号 ('1'), 題 ('羅生門'), 内容文 ('ある日の暮方の事である。一人の下人が')",
            "  expected: a column called text, content, contents, body, document …",
            "  remedy: add to data.read:  columns: {text: 内容文}",
        ]
    )
    assert texts(path, columns={"text": "内容文"}) == ["ある日の暮方の事である。一人の下人が"]
    with pytest.raises(DataError, match=r"there is no column 'boddy'"):
        read(path, columns={"text": "boddy"})


def test_endless_lines_and_documents_stay_within_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kogata.engine import text
    from kogata.engine.readers import txt

    for module in (text, txt):
        monkeypatch.setattr(module, "LONGEST", 1000)
    (tmp_path / "a.txt").write_text("x" * 2500 + "\n\n" + JAPANESE * 30, encoding="utf-8")
    found, account = read(tmp_path / "a.txt")
    assert all(len(document.text) <= 1000 for document in found)
    assert "".join(document.text for document in found) == "x" * 2500 + "\n\n" + JAPANESE * 30
    assert account.extra["cut_documents"] >= 3
    row = json.dumps({"text": "word " * 500})
    (tmp_path / "b.jsonl").write_text(row + "\n", encoding="utf-8")
    found, account = read(tmp_path / "b.jsonl")
    assert [document.id for document in found] == ["b.jsonl:1:1", "b.jsonl:1:2", "b.jsonl:1:3"]


def test_lines_too_long_are_cut_off_not_collected() -> None:
    blocks = iter(["ab", "cdefgh", "ij\nkl\n", "m"])
    assert list(_common.lines_of(blocks, 5)) == [(1, "abcde\n", True), (2, "kl\n", False), (3, "m", False)]


def test_an_endless_json_line_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.engine.readers import jsonl

    plain = _common.lines_of
    monkeypatch.setattr(jsonl, "lines_of", lambda blocks: plain(blocks, 100))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "y" * 500}) + '\n{"text": "z"}\n', encoding="utf-8")
    found, account = read(tmp_path / "a.jsonl")
    assert [document.text for document in found] == ["z"]
    assert account.reasons == {"endless line": 1}


def test_a_file_of_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="a file of no known format") as caught:
        input_files(str(tmp_path / "a.docx"))
    assert caught.value.found == "the ending '.docx'"


def test_a_missing_path_is_named() -> None:
    with pytest.raises(DataError, match="no such file, folder or pattern"):
        input_files("nowhere/at/all/*.txt")


def documents() -> list[Document]:
    return [
        Document("a", "held out\n", "heldout", "f"),
        Document("b", JAPANESE * 50, "train", "f", {"year": 1915}),
        Document("c", "テスト\u2028\x85", "test", "f"),
        Document("d", "x" * 3000, "train", "f"),
    ]


def test_a_corpus_comes_back_as_it_was(tmp_path: Path) -> None:
    facts = seal_documents(iter(documents()), tmp_path)
    assert list(read_corpus(tmp_path, "train")) == [documents()[1], documents()[3]]
    assert [document.split for document in read_documents(tmp_path)] == ["test", "heldout", "train", "train"]
    assert facts == {
        "splits": {
            "train": {
                "documents": 2,
                "bytes": len(JAPANESE.encode()) * 50 + 3000,
                "characters": len(JAPANESE) * 50 + 3000,
            },
            "heldout": {"documents": 1, "bytes": 9, "characters": 9},
            "test": {"documents": 1, "bytes": 14, "characters": 5},
        },
        "language_hint": "ja",
    }


def test_a_corpus_has_the_same_bytes_every_time_and_bounded_shards(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        writer = CorpusWriter(out, shard_bytes=4000)
        for document in documents() * 3:
            writer.write(document)
        writer.close()
        contents.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert contents[0] == contents[1]
    assert [name for name in contents[0] if name.startswith("train")] == [
        f"train-{number:05d}.jsonl.zst" for number in range(6)
    ]
    assert [document.id for document in read_corpus(tmp_path / "one", "train")] == ["b", "d"] * 3


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The rain went on and the kettle sang, and he thought of it.", "en"),
        (JAPANESE, "ja"),
        ("学而时习之,不亦说乎?有朋自远方来,不亦乐乎?", "zh"),
        ("나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄", "ko"),
        ("Der Hund und die Katze sind auf dem Dach, und das ist nicht gut.", "de"),
        ("1234 5678", "und"),
        ("", "und"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_hint(text) == language


def test_spaced() -> None:
    assert spaced("words set apart") and not spaced(JAPANESE) and spaced("나랏말싸미 듕귁에 달아")
    assert not spaced("มนุษย์ทั้งหลายเกิดมามีอิสระ")
