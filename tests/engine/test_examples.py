"""Examples are written and read back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogata.core.errors import DataError
from kogata.engine.examples import Example, ExamplesWriter, read_examples
from kogata.engine.shards import ShardWriter

ROWS = [
    Example(
        id="a.csv:2",
        form="completion",
        source="a.csv:2",
        group="T1",
        fields={"prompt": "返品は？", "completion": "三日以内です。", "system": "丁寧に"},
    ),
    Example(id="b", form="label", source="b.csv:2", fields={"text": "good", "label": "肯定"}),
    Example(
        id="c",
        form="messages",
        source="c.jsonl:1",
        fields={
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
            ]
        },
    ),
    Example(id="d", form="text", source="d.txt", fields={"text": "line\u2028two\r\n"}),
]


def test_examples_come_back_as_they_were_written(tmp_path: Path) -> None:
    digests = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        writer = ExamplesWriter(folder)
        for example in ROWS:
            writer.write(example, "heldout" if example.id == "b" else "train")
        facts = writer.close()
        digests.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert digests[0] == digests[1]
    assert list(read_examples(tmp_path / "one", "train")) == [ROWS[0], ROWS[2], ROWS[3]]
    assert list(read_examples(tmp_path / "one", "heldout")) == [ROWS[1]]
    assert facts["form"] == "mixed"
    assert facts["splits"]["train"]["examples"] == 3
    assert facts["splits"]["heldout"] == {
        "examples": 1,
        "bytes": 11,
        "characters": 7,
        "answer_bytes": 6,
        "longest_bytes": 11,
        "wide_letters": 2,
        "pieces": 2,
    }
    assert "labels" not in facts, "only the labels that are trained on are known"


def test_labels_are_those_of_training(tmp_path: Path) -> None:
    writer = ExamplesWriter(tmp_path)
    for number, label in enumerate(("肯定", "否定", "肯定")):
        writer.write(Example(id=str(number), form="label", fields={"text": "t", "label": label}))
    assert writer.close()["labels"] == ["否定", "肯定"]


def test_question_and_answer_of_each_form() -> None:
    assert [row.answer() for row in ROWS] == [
        "三日以内です。",
        "肯定",
        '[{"function": {"name": "f"}}]',
        "line\u2028two\r\n",
    ]
    assert [row.question() for row in ROWS] == ["丁寧に\n返品は？", "good", "q", ""]


@pytest.mark.parametrize(
    "row",
    [{"id": "a", "form": "poem"}, {"id": "a", "form": "label", "text": "t"}, {"form": "text", "text": "t"}],
)
def test_a_damaged_row_is_named(tmp_path: Path, row: dict[str, str]) -> None:
    writer = ShardWriter(tmp_path)
    writer.write("train", ROWS[0].to_row())
    writer.write("train", row)
    writer.close()
    with pytest.raises(DataError, match="row 2"):
        list(read_examples(tmp_path, "train"))
