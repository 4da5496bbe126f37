"""data.read of rows: which kind comes out, how rows are split, and every row that cannot be read told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_tables import tickets, write_csv, write_jsonl, write_xlsx
from training_bench import TrainingBench

from kogata.core.artifact import Kind
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Facts, Share
from kogata.engine.examples import Example, read_examples
from kogata.stages.data.read import Read

MACHINE = Machine(cores=2)


def stage_of(**settings: Any) -> Read:
    stage = Read.model_validate(settings).resolve({}, MACHINE, Share()).stage
    assert isinstance(stage, Read)
    return stage


def read(folder: Path, **settings: Any) -> tuple[Facts, dict[str, list[Example]], list[str]]:
    """Reads rows as a run would: facts, examples by split, and what was said."""
    bench = TrainingBench(folder / "run")
    facts = stage_of(kind="examples", **settings).run({}, bench)
    splits = {split: list(read_examples(bench.out, split)) for split in facts["splits"]}
    return facts, splits, bench.logs


def table(folder: Path, form: str, count: int = 60) -> Path:
    rows = [("番号", "質問", "回答"), *tickets(count)]
    if form == "xlsx":
        return write_xlsx(folder / "表.xlsx", rows)
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {name: [row[at] for row in rows[1:]] for at, name in enumerate(rows[0])}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "表.parquet")
        return folder / "表.parquet"
    if form == "jsonl":
        return write_jsonl(folder / "表.jsonl", [dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
    return write_csv(folder / "表.csv", rows, form)


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "cp932", "xlsx", "jsonl", "parquet"])
def test_one_table_gives_the_same_examples_in_every_format(tmp_path: Path, form: str) -> None:
    path = table(tmp_path, form)
    stage = Read(path=str(path))
    assert stage.made_kind({}) == Kind.EXAMPLES and not stage.streams()
    facts, splits, said = read(tmp_path, path=str(path))
    asked = {(row.fields["prompt"], row.fields["completion"]) for rows in splits.values() for row in rows}
    assert asked == {(question, answer) for _, question, answer in tickets()}
    assert facts["form"] == "completion" and facts["language_hint"] == "ja"
    assert facts["columns"] == {"prompt": "質問", "completion": "回答"}
    assert said[0] == "columns: prompt ← 質問, completion ← 回答 (not used: 番号)"
    assert [row.source for row in splits["heldout"]] == [row.id for row in splits["heldout"]]
    first = 1 if form in ("jsonl", "parquet") else 2
    numbers = {int(row.source.rpartition(":")[2]) for rows in splits.values() for row in rows}
    assert numbers == set(range(first, first + 60))
    told = stage_of(path=str(path)).forecast({}, MACHINE, Share())
    assert told.facts == {name: facts[name] for name in told.facts}, "of a small file the plan is exact"


def test_splits_are_by_content_whatever_the_order_and_the_format(tmp_path: Path) -> None:
    held = []
    for name, rows in (("a", tickets()), ("b", tickets()[::-1])):
        folder = tmp_path / name
        folder.mkdir()
        path = write_csv(folder / "a.csv", [("番号", "質問", "回答"), *rows])
        _, splits, _ = read(folder, path=str(path), heldout=0.1, test=0.1)
        assert [len(splits[split]) for split in ("train", "heldout", "test")] == [48, 6, 6]
        held.append({row.question() for row in splits["heldout"]})
    assert held[0] == held[1]


def test_rows_of_a_group_and_copies_of_a_question_stay_together(tmp_path: Path) -> None:
    rows = [*tickets(), ("T99", "注文3はいつ届きますか。", "別の答え")]
    path = write_csv(tmp_path / "a.csv", [("番号", "質問", "回答"), *rows])
    _, splits, _ = read(tmp_path, path=str(path), group="番号", heldout=0.3)
    found = {split: {row.group for row in some} for split, some in splits.items()}
    assert not found["train"] & found["heldout"] and len(splits["heldout"]) >= 18
    assert {row.group for some in splits.values() for row in some} == {row[0] for row in rows}
    joined = [split for split, groups in found.items() if "T99" in groups or "T1" in groups]
    assert len(joined) == 1, "one question joins two groups"


def test_named_files_are_held_out_with_their_questions_and_groups(tmp_path: Path) -> None:
    rows = tickets(30)
    path = write_csv(tmp_path / "a.csv", [("番号", "質問", "回答"), *rows])
    other = [("T0", "新しい質問", "答え"), ("T90", rows[9][1], "答え")]
    held = write_csv(tmp_path / "b.csv", [("番号", "質問", "回答"), *other])
    facts, splits, said = read(tmp_path, path=str(path), group="番号", heldout=str(held))
    assert len(splits["heldout"]) == 2 and len(splits["train"]) == 26, "three rows of T0, one question"
    assert any("held out by name as well, so not trained on: 4 rows" in line for line in said)
    assert facts["accounts"]["train.pretrain"]["reasons"] == {"also held out": 4}


def test_every_label_is_trained_on(tmp_path: Path) -> None:
    rows = [(f"text number {number}", f"label {number % 20}") for number in range(24)]
    path = write_csv(tmp_path / "a.csv", [("question", "intent"), *rows])
    facts, splits, _ = read(tmp_path, path=str(path), heldout=0.5)
    assert len({row.fields["label"] for row in splits["train"]}) == 20 == len(facts["labels"])
    assert {row.fields["label"] for row in splits["heldout"]} <= set(facts["labels"]) and splits["heldout"]
    alone = write_csv(tmp_path / "b.csv", [("question", "intent"), *[(f"t{n}", f"l{n}") for n in range(30)]])
    with pytest.raises(DataError, match="too few rows to hold some out") as caught:
        read(tmp_path / "b", path=str(alone), heldout=0.2)
    assert "30 labels" in str(caught.value) and "of every label" in str(caught.value)


def test_a_system_message_goes_where_none_is(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    own = [{"role": "system", "content": "own"}, *talk]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": talk}, {"messages": own}])
    _, splits, _ = read(tmp_path, path=str(path), system="丁寧に", heldout=0)
    said = [row.fields["messages"][0]["content"] for row in splits["train"]]
    assert said == ["丁寧に", "own"]
    plain = write_csv(tmp_path / "a.csv", [("question", "intent"), ("q", "a"), ("r", "b")])
    with pytest.raises(DataError, match="a system message has no place"):
        read(tmp_path, path=str(plain), system="x", heldout=0)


# Which kind


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "t", "source": "web"}, "corpus"),
        ({"text": "short", "label": "news"}, "corpus"),
        ({"本文": "短い", "分類": "報道"}, "corpus"),
        ({"question": "short", "intent": "news"}, "examples"),
        ({"text": "t", "prompt": "p", "completion": "c"}, "examples"),
    ],
)
def test_a_text_with_a_label_is_a_corpus_unless_asked(tmp_path: Path, row: dict, kind: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row] * 3)
    resolved = Read(path=str(path)).resolve({}, MACHINE, Share())
    assert isinstance(resolved.stage, Read) and resolved.stage.kind == kind and "kind" in resolved.reasons
    if "label" in row:
        assert "kind: examples would take 'label'" in resolved.reasons["kind"]
        for asked in ({"kind": "examples"}, {"columns": {"label": "label"}}):
            assert Read.model_validate({"path": str(path), **asked}).made_kind({}) == Kind.EXAMPLES


def test_a_table_that_cannot_be_told_says_what_to_add(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("何", "誰"), ("長い文章がここにある", "人")])
    with pytest.raises(DataError, match="which columns hold the prompt and the answer") as caught:
        stage_of(path=str(path))
    assert "columns: {prompt: 何, completion: 誰}" in str(caught.value)
    facts, _, _ = read(tmp_path, path=str(path), columns={"prompt": "何", "completion": "誰"}, heldout=0)
    assert facts["splits"]["train"]["examples"] == 1


# Rows that cannot be read


def test_bad_rows_are_told_by_number_field_and_remedy(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"prompt": "p", "completion": "c"},
            "{broken",
            {"prompt": "p"},
            {"prompt": " ", "completion": "c"},
            {"prompt": {"a": 1}, "completion": "c"},
            {"prompt": "p", "completion": None},
            {"prompt": "数", "completion": 1000000.0},
            {"prompt": "無", "completion": float("nan")},
        ],
    )
    facts, splits, said = read(tmp_path, path=str(path), heldout=0)
    assert [row.fields["completion"] for row in splits["train"]] == ["c", "1000000"]
    account = facts["accounts"]["train.pretrain"]
    assert account["read"] == 8 and account["kept"] == 2
    assert account["reasons"] == {
        "not JSON": 1, "completion is missing": 1, "prompt is empty": 1, "prompt is not a text": 1,
        "completion is empty": 2,
    }  # fmt: skip
    told = {row["source"]: row for row in account["extra"]["problems"]}
    assert told["a.jsonl:5"] == {
        "source": "a.jsonl:5",
        "field": "prompt",
        "reason": "prompt is not a text",
        "found": 'an object: {"a": 1}',
        "expected": "a text",
        "remedy": "name the column that holds the text itself (columns: …), or write one text in it",
    }
    assert "{broken" in told["a.jsonl:2"]["found"] and told["a.jsonl:3"]["found"] == "fields: prompt"
    assert any("2 of 8 rows could not be read: completion is empty, first a.jsonl:6" in line for line in said)


def test_conversations_out_of_order_are_told(tmp_path: Path) -> None:
    def talk(*roles: str) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": role} for role in roles]}

    path = write_jsonl(
        tmp_path / "a.jsonl",
        [talk("user", "assistant"), talk("user", "user", "assistant"), talk("user"), talk("user", "robot")],
    )
    facts, splits, _ = read(tmp_path, path=str(path), heldout=0)
    assert len(splits["train"]) == 1
    told = {row["source"]: row for row in facts["accounts"]["train.pretrain"]["extra"]["problems"]}
    assert told["a.jsonl:2"]["field"] == "messages[1].role" and "user → user" in told["a.jsonl:2"]["found"]
    assert told["a.jsonl:3"]["reason"] == "no answer at the end"
    assert told["a.jsonl:4"]["reason"] == "unknown role" and told["a.jsonl:4"]["found"] == '"robot"'


def test_nothing_readable_stops_with_the_first_fault(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": ""}] * 3)
    with pytest.raises(DataError, match="no row to train on") as caught:
        read(tmp_path, path=str(path))
    assert "3 × completion is empty" in str(caught.value)
    assert "a.jsonl:1, field completion" in str(caught.value)


def test_a_run_says_what_the_cheap_checks_found(tmp_path: Path) -> None:
    rows = [*tickets(40), *tickets(3), ("T0", "誰が返事をしますか。", "山田様から返事が来ます。")]
    path = write_csv(tmp_path / "a.csv", [("番号", "質問", "回答"), *rows])
    facts, _, said = read(tmp_path, path=str(path), heldout=0)
    assert facts["checks"]["duplicates"].startswith("3 rows")
    name = facts["checks"]["personal: name"]
    assert f"check: {name}" in said and "山…様" in name
    assert json.dumps(facts, ensure_ascii=False)


# Large tables, planned by their beginnings


@pytest.mark.parametrize("form", ["cp932", "xlsx"])
def test_the_plan_of_a_large_table_is_near(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path, form, 2000)
    facts, _, _ = read(tmp_path, path=str(path), heldout=0.03)
    monkeypatch.setattr("kogata.engine.example_plan.WHOLE_BYTES", 1000)
    monkeypatch.setattr("kogata.engine.example_plan.SAMPLE_BYTES", 20_000)
    told = stage_of(path=str(path), heldout=0.03, kind="examples").forecast({}, MACHINE, Share()).facts
    assert set(told) <= set(facts)
    for split in ("train", "heldout"):
        for name in ("examples", "bytes", "characters", "answer_bytes"):
            assert told["splits"][split][name] == pytest.approx(facts["splits"][split][name], rel=0.05), name


def test_the_plan_of_many_files_looks_into_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        some = [(f"{q}{number}", a) for _, q, a in tickets(50)]
        write_csv(tmp_path / "in" / f"{number:02}.csv", [("質問", "回答"), *some])
    monkeypatch.setattr("kogata.engine.example_plan.WHOLE_BYTES", 1000)
    opened: list[str] = []
    from kogata.engine.files import InputFile

    before = InputFile.open
    monkeypatch.setattr(InputFile, "open", lambda self: opened.append(self.name) or before(self))
    told = stage_of(path=str(tmp_path / "in"), kind="examples", heldout=0).forecast({}, MACHINE, Share())
    assert told.facts["splits"]["train"]["examples"] == pytest.approx(2000, rel=0.03)
    assert len(set(opened)) <= 12
