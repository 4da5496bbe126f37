"""Rows of tokens with tags and of texts with spans: what is read, and what is said of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from kogata.engine.conversation import Problem
from kogata.engine.tag_rows import (
    are_spans,
    are_tagged,
    joined,
    listed,
    marked_fields,
    tagged_fields,
    within_word,
)

NAMES = ("tokens", "tags")


def spans(tokens: Any, tags: Any) -> list[tuple[str, str]]:
    made = tagged_fields(tokens, tags, NAMES)
    assert isinstance(made, tuple), made
    text = made[0]["text"]
    return [(text[start:end], label) for start, end, label in made[0]["spans"]]


def marked(text: str, value: Any) -> Any:
    return marked_fields(text, text, value, "spans", lambda part: part)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Anna", "lives", "in", "Kyoto", "."], "Anna lives in Kyoto ."),
        (["太郎", "は", "京都", "に", "住む", "。"], "太郎は京都に住む。"),
        (["Google", "Japan", "は", "iPhone", "を", "売る"], "Google JapanはiPhoneを売る"),
        (["나는", "서울에", "산다"], "나는 서울에 산다"),
    ],
)
def test_tokens_become_a_text_as_it_is_written(tokens: list[str], text: str) -> None:
    made, places = joined(tokens)
    assert made == text and [made[start:end] for start, end in places] == tokens


def test_tags_become_spans() -> None:
    words = ["Anna", "Berg", "met", "Bo", "in", "New", "York"]
    tags = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "I-LOC"]
    assert spans(words, tags) == [("Anna Berg", "PER"), ("Bo", "PER"), ("New York", "LOC")]
    assert spans(["山田", "太郎", "は"], ["B-人名", "I-人名", "O"]) == [("山田太郎", "人名")]
    assert spans(["猫", "犬"], ["B-動物", "B-動物"]) == [("猫", "動物"), ("犬", "動物")], (
        "neighbours stay two"
    )


def test_other_schemes_are_read() -> None:
    words = ["a", "b", "c", "d", "e"]
    assert spans(words, ["B-X", "I-X", "E-X", "S-X", "O"]) == [("a b c", "X"), ("d", "X")]
    assert spans(words, ["B-X", "L-X", "U-Y", "B-X", "L-X"]) == [("a b", "X"), ("c", "Y"), ("d e", "X")]
    made = tagged_fields(words, ["I-X", "I-X", "O", "I-Y", "I-X"], NAMES)
    assert isinstance(made, tuple) and made[1] == 3, "IOB1: entities that begin with I- are counted"
    assert spans(words, ["I-X", "I-X", "O", "I-Y", "I-X"]) == [("a b", "X"), ("d", "Y"), ("e", "X")]


def test_plain_tags_are_one_a_token() -> None:
    made = tagged_fields(["猫", "が", "走る"], ["名詞", "助詞", "動詞"], NAMES)
    assert isinstance(made, tuple) and made[0]["plain"] is True
    assert made[0]["spans"] == [[0, 1, "名詞"], [1, 2, "助詞"], [2, 4, "動詞"]]
    nothing = tagged_fields(["a", "b"], ["O", "O"], NAMES)
    assert isinstance(nothing, tuple) and nothing[0]["spans"] == [] and "plain" not in nothing[0]


def test_lists_as_tables_hold_them() -> None:
    assert spans('["Anna", "went"]', "['B-PER', 'O']") == [("Anna", "PER")]
    assert spans("Anna went", "B-PER O") == [("Anna", "PER")]
    assert listed("[broken") is None and listed(3) is None


@pytest.mark.parametrize(
    ("tokens", "tags", "field", "reason", "found"),
    [
        (["a", "b"], ["O"], "tags", "tokens and tags differ in number", "2 tokens, 1 tags"),
        (["a"], [3], "tags[0]", "tags are numbers", "3"),
        (["a", ""], ["O", "O"], "tokens[1]", "a token that is no word", '""'),
        ([], [], "tokens", "no tokens", "an empty list"),
        (7, ["O"], "tokens", "tokens are no list", "7"),
        (["a"], [""], "tags[0]", "a tag is empty", '""'),
        (["a", "b"], ["B-X", "Y"], "tags[1]", "a tag without B- or I- among others with them", '"Y"'),
    ],
)
def test_what_is_wrong_with_tags(tokens: Any, tags: Any, field: str, reason: str, found: str) -> None:
    problem = tagged_fields(tokens, tags, NAMES)
    assert isinstance(problem, Problem)
    assert (problem.field, problem.reason, problem.found) == (field, reason, found)
    assert problem.expected and problem.remedy


@pytest.mark.parametrize(
    "value",
    [
        [{"start": 0, "end": 4, "label": "人名"}],
        [{"name": "山田太郎", "span": [0, 4], "type": "人名"}],
        [[0, 4, "人名"]],
        '[{"start_offset": 0, "end_offset": 4.0, "label": "人名"}]',
        [[0, 4, "人名"], [0, 4, "人名"]],
    ],
)
def test_spans_as_tools_write_them(value: Any) -> None:
    assert marked("山田太郎は大阪へ", value)["spans"] == [[0, 4, "人名"]]


def test_white_space_belongs_to_no_span_and_rows_may_mark_nothing() -> None:
    assert marked("to Kyoto now", [[2, 9, "LOC"]])["spans"] == [[3, 8, "LOC"]]
    assert marked("雨が降る", [])["spans"] == [] and marked("雨が降る", "")["spans"] == []


@pytest.mark.parametrize(
    ("value", "reason", "found"),
    [
        ([[0, 40, "LOC"]], "a span outside of the text", "0–40 (LOC)"),
        ([[3, 1, "LOC"]], "a span outside of the text", "3–1 (LOC)"),
        ([[2, 2, "LOC"]], "an empty span", "2–2 (LOC)"),
        ([[0, 2, "地名"], [1, 3, "地名"]], "overlapping spans", "'大阪' (0–2, 地名) and '阪府' (1–3, 地名)"),
        ([{"start": 0, "end": 2, "label": "地名", "text": "京都"}],
         "a span that holds another text than it says", "'大阪' at 0–2"),
        ([{"start": "0", "end": 2, "label": "x"}], "a span that cannot be read", None),
        ([[0, 2]], "a span that cannot be read", None),
        (["地名"], "spans are no list", None),
        ({"start": 0}, "spans are no list", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_spans(value: Any, reason: str, found: str | None) -> None:
    problem = marked("大阪府 ", value)
    assert isinstance(problem, Problem) and problem.reason == reason
    assert found is None or problem.found == found
    assert problem.expected and problem.remedy


def test_places_follow_the_text_when_line_ends_are_made_plain() -> None:
    raw = "a\r\n東京"
    made = marked_fields(raw, "a\n東京", [[3, 5, "地名"]], "spans", lambda part: part.replace("\r\n", "\n"))
    assert made["spans"] == [[2, 4, "地名"]]


def test_what_looks_like_spans_and_where_words_are_cut() -> None:
    assert are_spans([[[0, 2, "LOC"]], []]) and are_spans([[{"start": 0, "end": 1, "label": "x"}]])
    assert not are_spans([["a", "b"]]) and not are_spans([[], None]) and not are_spans(["LOC"])
    assert within_word("Kyoto", 2) and within_word("2024", 2)
    assert not within_word("京都", 1) and not within_word("5km", 1) and not within_word("a b", 1)


def test_what_looks_like_tokens_with_tags() -> None:
    assert are_tagged([["a", "b"], ["c"]], [["O", "O"], ["O"]])
    assert are_tagged(["Anna went", "it rained"], ["B-PER O", "O O"])
    assert not are_tagged(["apple", "pear"], ["fruit", "fruit"]), "a word and its label"
    assert not are_tagged(["a long text", "another one"], ["news", "sports"])
    assert not are_tagged([12, 40], ["news", "sports"])
