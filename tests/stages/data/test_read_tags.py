"""data.read of rows with marks: columns told and mapped, CoNLL files, splits, problems by row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_bench import TrainingBench

from kogata.core.artifact import Kind
from kogata.core.errors import DataError
from kogata.engine.checking import check_rows
from kogata.engine.examples import read_examples
from kogata.stages.data.read import Read

TAGGED = {"tokens": ["Anna", "lives", "in", "Kyoto"], "ner_tags": ["B-PER", "O", "O", "B-LOC"]}
MARKED = {"text": "山田太郎は大阪へ行った。", "entities": [{"name": "大阪", "span": [5, 7], "type": "地名"}]}


def lines(path: Path, rows: list[Any]) -> str:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def read(folder: Path, **settings: Any) -> tuple[dict[str, Any], TrainingBench]:
    bench = TrainingBench(folder / "bench")
    stage = Read(**{"heldout": 0.0, **settings})
    assert stage.made_kind({}) == Kind.EXAMPLES
    return stage.run({}, bench), bench


@pytest.mark.parametrize(("row", "roles"), [
    (TAGGED, {"tokens": "tokens", "tags": "ner_tags"}),
    (MARKED, {"text": "text", "spans": "entities"}),
    ({"text": "to Kyoto", "label": [[3, 8, "LOC"]]}, {"text": "text", "spans": "label"}),
    ({"単語": ["猫", "が"], "品詞": ["名詞", "助詞"]}, {"tokens": "単語", "tags": "品詞"}),
])  # fmt: skip
def test_columns_are_told_by_name_and_content(tmp_path: Path, row: dict[str, Any], roles: Any) -> None:
    facts, bench = read(tmp_path, path=lines(tmp_path / "rows.jsonl", [row, row]))
    assert facts["form"] == "tags" and facts["columns"] == roles
    assert any(line.startswith("columns: ") for line in bench.logs)


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    rows = [{"原文": MARKED["text"], "印": json.dumps(MARKED["entities"], ensure_ascii=False)}]
    path = lines(tmp_path / "rows.jsonl", rows)
    facts, bench = read(tmp_path, path=path, columns={"text": "原文", "spans": "印"})
    (row,) = read_examples(bench.out, "train")
    assert row.fields == {"text": MARKED["text"], "spans": [[5, 7, "地名"]]} and facts["labels"] == ["地名"]
    with pytest.raises(DataError, match="no column 'spanz'"):
        read(tmp_path / "b", path=path, columns={"text": "原文", "spans": "spanz"})


def test_a_label_beside_a_text_is_still_a_label(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}])
    facts, _ = read(tmp_path, path=path, kind="examples")
    assert facts["form"] == "label"


CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O
. . O

# a comment
太郎 B-PER
は O

# B-SIGN
x O
"""
CONLLU = """# text = 猫が走る
1\t猫\t猫\tNOUN\t_
2-3\tがね\t_\t_\t_
2\tが\tが\tADP\t_
3\t走る\t走る\tVERB\t_
"""


def test_conll_files(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL, encoding="utf-8")
    facts, bench = read(tmp_path, path=str(tmp_path / "a.conll"))
    rows = list(read_examples(bench.out, "train"))
    assert [row.fields["text"] for row in rows] == ["EU rejects .", "太郎は", "# x"]
    assert [row.source for row in rows] == ["a.conll:3", "a.conll:8", "a.conll:11"]
    assert facts["labels"] == ["ORG", "PER", "SIGN"] and facts["splits"]["train"]["examples"] == 3


def test_conllu_files_give_parts_of_speech(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU, encoding="utf-8")
    facts, bench = read(tmp_path, path=str(tmp_path / "a.conllu"))
    (row,) = read_examples(bench.out, "train")
    assert row.fields["text"] == "猫が走る" and row.fields["plain"] is True
    assert facts["labels"] == ["ADP", "NOUN", "VERB"]


def test_a_conll_line_without_a_tag_costs_its_sentence_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Tom B-PER\nran\n\nAnn B-PER\n", encoding="utf-8")
    facts, bench = read(tmp_path, path=str(tmp_path / "a.conll"))
    assert facts["splits"]["train"]["examples"] == 1
    problem = facts["accounts"]["train.pretrain"]["extra"]["problems"][0]
    assert problem["source"] == "a.conll:2" and problem["reason"] == "line without a tag"
    assert any("1 of 2 rows could not be read: line without a tag" in line for line in bench.logs)


def test_conll_as_a_corpus_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL, encoding="utf-8")
    from kogata.core.stage import Account

    account = Account()
    found = list(Read(path=str(tmp_path / "a.conll"), kind="corpus", heldout=0.0).each([], account))
    assert [document.text for document in found] == ["EU rejects .", "太郎は", "# x"]


def test_sentences_are_counted_for_the_plan(tmp_path: Path) -> None:
    from kogata.engine.files import InputFile
    from kogata.engine.readers import conll
    from kogata.engine.readers._common import ReadOptions

    (tmp_path / "a.conll").write_text(CONLL * 50, encoding="utf-8")
    file = InputFile(tmp_path / "a.conll", "a.conll")
    assert conll.count_rows(file, ReadOptions()) == 150
    seen = conll.sample(file, ReadOptions())
    assert seen.documents == 150 and seen.text.startswith("EU rejects .\n太郎は")


def test_problems_say_row_field_found_expected_and_remedy(tmp_path: Path) -> None:
    wrong = {"tokens": ["a", "b", "c"], "ner_tags": ["O", "O"]}
    facts, bench = read(tmp_path, path=lines(tmp_path / "rows.jsonl", [TAGGED, wrong]))
    (line,) = [line for line in bench.logs if "could not be read" in line]
    assert "rows.jsonl:2, field ner_tags: found 3 tokens, 2 tags; expected one tag a token" in line
    assert facts["splits"]["train"]["examples"] == 1


def test_groups_and_copies_stay_together_and_every_label_is_trained_on(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        label = "稀" if number == 0 else "地名"
        text = f"{number}番は大阪"
        spans = [[len(text) - 2, len(text), label]]
        rows.append({"text": text, "spans": spans, "家": f"家{number // 5}"})
    path = lines(tmp_path / "rows.jsonl", rows)
    facts, bench = read(tmp_path, path=path, group="家", heldout=0.25)
    held = {row.group for row in read_examples(bench.out, "heldout")}
    train = list(read_examples(bench.out, "train"))
    assert held and not held & {row.group for row in train}
    assert facts["labels"] == ["地名", "稀"]


def test_check_says_what_is_wrong_with_marks(tmp_path: Path) -> None:
    rows = [{"text": "Anna met Berta", "spans": [[0, 4, "PER"]]}] * 3
    rows += [{"text": "then Anna left", "spans": []}, {"text": "Annabel", "spans": [[0, 4, "PER"]]}]
    held = lines(tmp_path / "held.jsonl", [{"text": "to 京都", "spans": [[3, 5, "LOC"]]}])
    found = check_rows(
        Read(path=lines(tmp_path / "rows.jsonl", rows), kind="examples", heldout=held).reading()
    )
    assert found.labels == {"PER": 4}
    names = {finding.name: finding for finding in found.findings}
    assert names["unseen labels"].level == "problem" and "LOC" in names["unseen labels"].what
    assert names["unseen labels"].rows[0]["source"] == "held.jsonl:1"
    assert names["marked here, unmarked there"].rows[0]["source"] == "rows.jsonl:4"
    assert names["spans within words"].rows[0]["source"] == "rows.jsonl:5"
    assert "rare labels" in names and "duplicates" in names


def test_check_says_that_nothing_is_marked(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "雨", "spans": []}, {"text": "雪", "spans": []}])
    stage = Read(path=path, columns={"text": "text", "spans": "spans"}, heldout=0.0)
    assert check_rows(stage.reading()).findings[0].name == "nothing is marked"
