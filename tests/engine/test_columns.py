"""Columns: which header holds what, by name or as the user says, and what is said where it cannot be told."""

from __future__ import annotations

from typing import Any

import pytest

from kogata.core.errors import DataError
from kogata.engine.columns import check_asked, could_be_corpus, field_of, map_columns, unknown_columns

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def mapped(row: dict[str, Any], **asked: str) -> tuple[str | None, dict[str, str]]:
    found = map_columns(list(row), [row], asked)
    return (None, {}) if found is None else (found.form, dict(found.roles))


@pytest.mark.parametrize(
    ("row", "form", "roles"),
    [
        ({"prompt": "p", "completion": "c"}, "completion", {"prompt": "prompt", "completion": "completion"}),
        ({"質問": "p", "回答": "c", "番号": 1}, "completion", {"prompt": "質問", "completion": "回答"}),
        (
            {"Ｑｕｅｓｔｉｏｎ ": "p", "ANSWER": "c"},
            "completion",
            {"prompt": "Ｑｕｅｓｔｉｏｎ ", "completion": "ANSWER"},
        ),
        (
            {"instruction": "p", "input": "x", "output": "c", "text": "all of it"},
            "completion",
            {"prompt": "instruction", "input": "input", "completion": "output"},
        ),
        ({"input": "p", "output": "c"}, "completion", {"prompt": "input", "completion": "output"}),
        ({"messages": TALK, "tools": []}, "messages", {"messages": "messages", "tools": "tools"}),
        ({"conversations": '[{"from": "human", "value": "q"}]'}, "messages", {"messages": "conversations"}),
        ({"messages": 17, "text": "t"}, "text", {"text": "text"}),
        ({"text": "t", "label": 3}, "label", {"text": "text", "label": "label"}),
        ({"レビュー": "t", "感情": "肯定"}, "label", {"text": "レビュー", "label": "感情"}),
        (
            {"sentence1": "a", "sentence2": "b", "label": 1.0},
            "label",
            {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        ),
        ({"text": "t", "category": "x" * 65}, "text", {"text": "text"}),
        ({"本文": "t"}, "text", {"text": "本文"}),
        ({"a": "t", "b": "u"}, None, {}),
    ],
    ids=lambda value: ",".join(value)[:30] if isinstance(value, dict) else None,
)
def test_headers_are_known_by_their_usual_names(row: dict, form: str | None, roles: dict) -> None:
    assert mapped(row) == (form, roles)


def test_the_user_has_the_last_word() -> None:
    row = {"text": "t", "label": "x", "返事": "c", "件名": "s"}
    roles = {"prompt": "text", "completion": "返事"}
    assert mapped(row, **roles) == ("completion", roles)
    assert mapped(row, text="件名") == ("text", {"text": "件名"})
    assert mapped(row, label="件名") == ("label", {"text": "text", "label": "件名"})
    assert mapped({"question": "q", "intent": "i"}, label="question") == (None, {})
    found = map_columns(list(row), [row], {"prompt": "text", "completion": "返事", "id": "件名"})
    assert found is not None and found.unused == ("label",)
    assert found.said == "prompt ← text, completion ← 返事, id ← 件名 (not used: label)"


def test_a_column_called_text_may_be_a_corpus() -> None:
    for row, could in (({"text": "t", "label": "x"}, True), ({"question": "t", "intent": "x"}, False)):
        found = map_columns(list(row), [row], {})
        assert found is not None and could_be_corpus(found) is could


def test_fields_are_reached_inside_objects() -> None:
    row = {"a": {"b": "inner"}, "a.c": "flat"}
    assert field_of(row, "a.b") == "inner" and field_of(row, "a.c") == "flat" and field_of(row, "x.y") is None
    check_asked(["a"], [row], {"prompt": "a.b"}, "rows.jsonl")


def test_an_unknown_header_lists_the_columns_and_a_line_to_paste() -> None:
    rows = [
        {
            "件名": "届かない",
            "問い": "注文した品物がまだ届きません。",
            "返事": "明日までに届く見込みです。",
            "区": kind,
        }
        for kind in ("配送", "配送", "返品")
    ]
    names = list(rows[0])
    with pytest.raises(DataError, match="there is no column '返信'") as caught:
        check_asked(names, rows, {"completion": "返信"}, "a.csv")
    assert "件名 ('届かない')" in str(caught.value) and "(completion)" in str(caught.value)
    error = unknown_columns(names, rows, "a.csv")
    assert "columns: {prompt: 問い, completion: 返事}" in str(error)
    assert "columns: {text: 問い, label: 件名}" not in str(error), "one value alone is no label"
    assert "columns: {text: 問い, label: 区}" in str(error) and "columns: {text: 問い}" in str(error)
    with pytest.raises(DataError, match="did you mean 'answer'"):
        row = {"question": "q", "answer": "a"}
        check_asked(list(row), [row], {"completion": "answr"}, "a.csv")
