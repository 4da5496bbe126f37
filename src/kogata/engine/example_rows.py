"""Rows of a table become examples, or problems with their row, field and remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kogata.engine.columns import Columns, field_of
from kogata.engine.conversation import Problem, order_problem, read_messages, read_tools
from kogata.engine.encodings import mend
from kogata.engine.examples import Example
from kogata.engine.tag_rows import marked_fields, tagged_fields
from kogata.engine.text import UNDECODABLE

Made = Example | Problem

MAY_BE_NUMBERS = ("completion", "label")
"""Roles that a number, or true and false, can fill: an answer to be said, a label."""


@dataclass(frozen=True, kw_only=True)
class RowProblem(Problem):
    """What is wrong with one row, in which field, and where the row stands."""

    source: str
    """File and row: `rows.csv:17`."""

    def to_dict(self) -> dict[str, str]:
        """Gives the parts by name."""
        names = ("source", "field", "reason", "found", "expected", "remedy")
        return {name: getattr(self, name) for name in names}


class RowReader:
    """Makes examples of one table's rows.

    Args:
        columns: which header holds what.
        system: the system message of rows that bring none.
        group: the header that names a row's group.
        cells: whether the rows are a spreadsheet's, whose numbers are what someone typed as text.
    """

    def __init__(
        self, columns: Columns, *, system: str | None = None, group: str | None = None, cells: bool = False
    ) -> None:
        self.columns, self.system, self.group, self.cells = columns, system, group, cells
        self.mended = 0
        """Fields in which undecodable bytes, lone surrogates or NULs were replaced."""
        self.begun = 0
        """Entities of tags that begin with I-."""
        self._make: Callable[[Mapping[str, Any]], dict[str, Any] | Problem] = {
            "completion": self._completion,
            "messages": self._messages,
            "label": self._label,
            "text": self._plain,
            "tags": self._tags,
        }[columns.form]

    def make(self, row: Mapping[str, Any], source: str) -> Example | RowProblem:
        """Makes the example of one row, or says what is wrong with it."""
        fields = self._make(row)
        if isinstance(fields, Problem):
            return at(fields, source)
        group = field_of(row, self.group) if self.group is not None else None
        identity = field_of(row, self.columns.roles["id"]) if "id" in self.columns.roles else None
        return Example(
            id=source if identity in (None, "") else str(identity),
            form=self.columns.form,
            source=source,
            group=None if group in (None, "") else str(group),
            fields=fields,
        )

    def _completion(self, row: Mapping[str, Any]) -> dict[str, Any] | Problem:
        made: dict[str, Any] = {}
        for role in ("prompt", "completion"):
            text = self._text(row, role)
            if isinstance(text, Problem):
                return text
            made[role] = text
        for role in ("input", "system"):
            if role not in self.columns.roles or field_of(row, self.columns.roles[role]) in (None, ""):
                continue
            text = self._text(row, role, may_be_blank=True)
            if isinstance(text, Problem):
                return text
            if role == "input" and text.strip():
                made["prompt"] = f"{made['prompt']}\n\n{text}"
            elif text.strip():
                made[role] = text
        if self.system is not None:
            made.setdefault("system", self.system)
        return made

    def _messages(self, row: Mapping[str, Any]) -> dict[str, Any] | Problem:
        header = self.columns.roles["messages"]
        value = field_of(row, header)
        if value in (None, ""):
            return self._missing(row, "messages")
        messages = read_messages(_mended_all(value, self), header)
        if isinstance(messages, Problem):
            return messages
        system = self.system
        if "system" in self.columns.roles and field_of(row, self.columns.roles["system"]) not in (None, ""):
            given = self._text(row, "system")
            if isinstance(given, Problem):
                return given
            system = given
        if system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        problem = order_problem(messages, header)
        if problem:
            return problem
        made: dict[str, Any] = {"messages": messages}
        if "tools" in self.columns.roles:
            tools = read_tools(field_of(row, self.columns.roles["tools"]), self.columns.roles["tools"])
            if isinstance(tools, Problem):
                return tools
            if tools:
                made["tools"] = tools
        return made

    def _label(self, row: Mapping[str, Any]) -> dict[str, Any] | Problem:
        made: dict[str, Any] = {}
        for role in ("text", "text_pair", "label"):
            if role not in self.columns.roles:
                continue
            text = self._text(row, role)
            if isinstance(text, Problem):
                return text
            made[role] = text.strip() if role == "label" else text
        return made

    def _plain(self, row: Mapping[str, Any]) -> dict[str, Any] | Problem:
        text = self._text(row, "text")
        return text if isinstance(text, Problem) else {"text": text}

    def _tags(self, row: Mapping[str, Any]) -> dict[str, Any] | Problem:
        roles = self.columns.roles
        for role in ("tokens", "tags", "spans"):
            if role in roles and field_of(row, roles[role]) is None:
                return self._missing(row, role)
        if "tokens" in roles:
            tokens, tags = (_mended_all(field_of(row, roles[role]), self) for role in ("tokens", "tags"))
            made = tagged_fields(tokens, tags, (roles["tokens"], roles["tags"]))
            if isinstance(made, Problem):
                return made
            self.begun += made[1]
            return made[0]
        text = self._text(row, "text")
        if isinstance(text, Problem):
            return text
        raw, spans = field_of(row, roles["text"]), field_of(row, roles["spans"])
        return marked_fields(str(raw), text, _mended_all(spans, self), roles["spans"], _plain_text)

    def _text(self, row: Mapping[str, Any], role: str, *, may_be_blank: bool = False) -> str | Problem:
        header = self.columns.roles[role]
        value = field_of(row, header)
        if value is None or value != value:  # A table's NaN is an empty cell.
            return self._missing(row, role)
        number = isinstance(value, int | float)
        if not (isinstance(value, str) or (number and (role in MAY_BE_NUMBERS or self.cells))):
            quoted = "write it in quotes if it is one, or name the column that holds the text (columns: …)"
            named = "name the column that holds the text itself (columns: …), or write one text in it"
            return Problem(
                field=header,
                reason=f"{role} is not a text",
                found=f"{_kind_of(value)}: {_short(value)}",
                expected="a text",
                remedy=quoted if number else named,
            )
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        text, mends = mend(value)
        if mends.undecodable > UNDECODABLE * len(text):
            return Problem(
                field=header,
                reason="undecodable bytes",
                found=_short(text),
                expected="text in one encoding",
                remedy="say the encoding (encoding: cp932), or save the file as UTF-8",
            )
        self.mended += bool(mends.undecodable or mends.surrogates or mends.zeros)
        if not text.strip() and not may_be_blank:
            return Problem(
                field=header,
                reason=f"{role} is empty",
                found=_short(value),
                expected="some text",
                remedy="fill it in, or leave the row out",
            )
        return _plain_ends(text)

    def _missing(self, row: Mapping[str, Any], role: str) -> Problem:
        header = self.columns.roles[role]
        there = header in row
        return Problem(
            field=header,
            reason=f"{role} is empty" if there else f"{role} is missing",
            found="null" if there else f"fields: {', '.join(map(str, row)) or 'none'}",
            expected="a list" if role in ("tokens", "tags", "spans") else "some text",
            remedy="fill it in, or leave the row out",
        )


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _plain_text(text: str) -> str:
    """Gives a text as `_text` leaves it."""
    return _plain_ends(mend(text)[0])


def at(problem: Problem, source: str) -> RowProblem:
    """Says in which row a problem is."""
    return RowProblem(**vars(problem), source=source)


def _mended_all(value: Any, reader: RowReader) -> Any:
    if isinstance(value, str):
        text, mends = mend(value)
        reader.mended += bool(mends.undecodable or mends.surrogates or mends.zeros)
        return text.replace("\r\n", "\n")
    if isinstance(value, Mapping):
        return {key: _mended_all(item, reader) for key, item in value.items()}
    return [_mended_all(item, reader) for item in value] if isinstance(value, list) else value


def _kind_of(value: Any) -> str:
    if isinstance(value, int | float):
        return "true or false" if isinstance(value, bool) else "a number"
    return {dict: "an object", list: "a list"}.get(type(value), f"a {type(value).__name__}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
