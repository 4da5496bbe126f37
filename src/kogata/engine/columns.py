"""Columns: which header of a table holds the prompt, the answer, the label, by name or as the user says."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kogata.core.errors import DataError
from kogata.core.registry import suggest
from kogata.engine.examples import Form
from kogata.engine.readers._common import TEXT_NAMES, quoted, shown_columns
from kogata.engine.tag_rows import are_spans, are_tagged

ROLES = (
    "prompt", "input", "completion", "system", "messages", "tools", "text", "text_pair", "label", "tokens",
    "tags", "spans", "id"
)  # fmt: skip
_NAMES: dict[str, tuple[str, ...]] = {
    "prompt": (
        "prompt", "instruction", "question", "query", "request", "user", "inquiry", "problem", "input",
        "プロンプト", "指示", "質問", "質問文", "質問内容", "問題", "問い合わせ", "お問い合わせ", "問合せ",
        "問い合わせ内容", "入力",
    ),
    "completion": (
        "completion", "output", "response", "answer", "reply", "target", "assistant", "solution",
        "回答", "返答", "応答", "返信", "出力", "答え", "解答", "回答内容", "回答文",
    ),
    "input": ("input", "context", "入力", "文脈"),
    "system": ("system", "system_prompt", "システム"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "会話", "対話"),
    "tools": ("tools", "functions"),
    "label": (
        "label", "labels", "category", "class", "intent", "sentiment",
        "ラベル", "分類", "カテゴリ", "カテゴリー", "種別", "区分", "感情",
    ),
    "text": (
        *TEXT_NAMES, "sentence", "sentence1", "utterance", "review", "comment", "question", "query",
        "発話", "文", "レビュー", "質問", "問い合わせ", "お問い合わせ", "問合せ",
    ),
    "text_pair": ("text_pair", "sentence2", "text2", "hypothesis"),
    "tokens": ("tokens", "words", "トークン", "単語"),
    "tags": (
        "tags", "ner_tags", "ner", "pos_tags", "pos", "upos", "xpos", "labels", "label", "タグ", "品詞",
    ),
    "spans": (
        "spans", "entities", "ents", "annotations", "固有表現", "エンティティ", "labels", "label", "ラベル",
    ),
}  # fmt: skip
"""Headers taken for each role, the first that is there; compared without case, width and spaces."""
LONGEST_LABEL = 64
"""Characters of a label; a column with longer values holds something else."""
LOOKED_AT = 20
"""Rows that say which column is which."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How a table is read: its form, and role → header."""

    form: Form
    roles: Mapping[str, str]
    unused: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """Says which header is taken for what."""
        taken = ", ".join(f"{role} ← {header}" for role, header in self.roles.items())
        return taken + (f" (not used: {', '.join(self.unused)})" if self.unused else "")


def map_columns(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], asked: Mapping[str, str]
) -> Columns | None:
    """Finds the form and the roles of a table's columns; None where they cannot be told.

    Args:
        names: the headers.
        rows: the first rows.
        asked: role → header as the user says; these headers exist.
    """
    found = {role: header for role in ROLES if (header := _find(role, names, asked)) is not None}
    form = _form(found, rows, asked)
    if form is None:
        return None
    wanted = _ROLES_OF[form]
    if form == "tags" and not _has_tokens(found, rows, asked):
        wanted = ("text", "spans", "id")
    roles = {role: found[role] for role in wanted if role in found}
    taken = set(asked.values())
    for role, header in list(roles.items()):
        if role not in asked and (header in taken or (role == "id")):
            if role in _NEEDED[form]:
                return None
            del roles[role]
        taken.add(header)
    unused = tuple(name for name in names if name not in set(roles.values()))
    return Columns(form=form, roles=roles, unused=unused)


_ROLES_OF: dict[Form, tuple[str, ...]] = {
    "completion": ("prompt", "input", "completion", "system", "id"),
    "messages": ("messages", "tools", "system", "id"),
    "label": ("text", "text_pair", "label", "id"),
    "text": ("text", "id"),
    "tags": ("tokens", "tags", "id"),
}
_NEEDED: dict[Form, tuple[str, ...]] = {
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
    "label": ("text", "label"),
    "text": ("text",),
    "tags": ("tokens", "tags", "text", "spans"),
}


def _find(role: str, names: Sequence[str], asked: Mapping[str, str]) -> str | None:
    if role in asked:
        return asked[role]
    plain = {_plain(name): name for name in reversed(names)}
    free = (plain[name] for name in map(_plain, _NAMES.get(role, ())) if name in plain)
    return next((name for name in free if name not in asked.values()), None)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().lower().replace(" ", "_").replace("-", "_")


def _form(
    found: Mapping[str, str], rows: Sequence[Mapping[str, Any]], asked: Mapping[str, str]
) -> Form | None:
    def has(form: Form) -> bool:
        if form == "tags":
            return {"tokens", "tags"} <= set(found) or {"text", "spans"} <= set(found)
        return all(role in found for role in _NEEDED[form])

    for form, telling in (
        ("messages", {"messages", "tools"}),
        ("completion", {"prompt", "completion", "input"}),
        ("label", {"label", "text_pair"}),
        ("tags", {"tokens", "tags", "spans"}),
    ):
        if telling & set(asked):
            return form if has(form) else None  # type: ignore[return-value]
    if "text" in asked:
        return "text"
    if has("messages") and any(_is_conversation(field_of(row, found["messages"])) for row in rows):
        return "messages"
    if has("tags") and (_has_tokens(found, rows, asked) or _has_spans(found, rows)):
        return "tags"
    if has("completion"):
        return "completion"
    if has("label") and _are_labels([field_of(row, found["label"]) for row in rows]):
        return "label"
    return "text" if "text" in found and _plain(found["text"]) in map(_plain, TEXT_NAMES) else None


def _has_tokens(
    found: Mapping[str, str], rows: Sequence[Mapping[str, Any]], asked: Mapping[str, str]
) -> bool:
    """Says whether a table holds tokens and tags: as the user says, else by what stands in the columns."""
    if not {"tokens", "tags"} <= set(found) or "spans" in asked:
        return False
    if not rows or {"tokens", "tags"} & set(asked):
        return True
    return are_tagged(*([field_of(row, found[role]) for row in rows] for role in ("tokens", "tags")))


def _has_spans(found: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> bool:
    return {"text", "spans"} <= set(found) and are_spans([field_of(row, found["spans"]) for row in rows])


def _is_conversation(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return False
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _are_labels(values: Sequence[Any]) -> bool:
    given = [value for value in values if value not in (None, "")]
    return bool(given) and all(map(_is_label, given))


def _is_label(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= LONGEST_LABEL)


def could_be_corpus(columns: Columns) -> bool:
    """Says whether a column is called as the text of a corpus is: `text`, `content`, 本文."""
    return _plain(columns.roles.get("text", "")) in map(_plain, TEXT_NAMES)


def field_of(row: Mapping[str, Any], header: str) -> Any:
    """Gives a row's field; `a.b` reaches into a nested object where no header is called so."""
    if header in row:
        return row[header]
    value: Any = row
    for part in header.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_asked(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], asked: Mapping[str, str], where: str
) -> None:
    """Refuses a header that is not there.

    Raises:
        DataError: lists the columns with a sample each, and a line to paste.
    """
    for role, header in asked.items():
        if header in names or any(field_of(row, header) is not None for row in rows):
            continue
        near = suggest(header, names)
        raise DataError(
            f"there is no column {header!r}",
            where=f"{where}, columns of data.read ({role})",
            found=f"columns: {shown_columns(names, rows)}",
            remedy=f"did you mean {near!r}?" if near else _paste(names, rows),
        )


def unknown_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]], where: str) -> DataError:
    """Makes the error for a table whose columns cannot be told."""
    return DataError(
        "which columns hold the prompt and the answer, or the text?",
        where=where,
        found=f"columns: {shown_columns(names, rows)}",
        expected="prompt and completion, question and answer, instruction and output, messages, text and "
        "label, tokens and tags, text and spans, or text",
        remedy=_paste(names, rows),
    )


def _paste(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes the line that most likely helps: short values are a label, long ones prompt and answer."""

    def length(name: str) -> float:
        return sum(len(str(row.get(name) or "")) for row in rows) / max(1, len(rows))

    texts = [name for name in names if any(isinstance(row.get(name), str) for row in rows)] or list(names)
    chosen = sorted(texts, key=length, reverse=True)[:2]
    longest = max(chosen, key=length, default="…")
    chosen.sort(key=list(names).index)
    first, last = (chosen * 2)[:2] if chosen else ("…", "…")
    ways = [f"columns: {{prompt: {quoted(first)}, completion: {quoted(last)}}}"]
    label = next((name for name in names if name != longest and _repeats(name, rows)), None)
    if label is not None:
        ways.append(f"or, to classify:  columns: {{text: {quoted(longest)}, label: {quoted(label)}}}")
    ways.append(f"or, to read text:  columns: {{text: {quoted(longest)}}}")
    return f"add to data.read:  {ways[0]}  ({'; '.join(ways[1:])})"


def _repeats(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Says whether a column looks like labels: short values, some of them again."""
    values = [row.get(name) for row in rows if row.get(name) not in (None, "")]
    return _are_labels(values) and 1 < len(set(map(str, values))) < len(values)
