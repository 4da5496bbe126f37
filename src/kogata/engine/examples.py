"""Examples: rows that are learned from as rows, and the artifact they are written to and read from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kogata.core.stage import Facts
from kogata.engine.pieces import count_pieces
from kogata.engine.shards import SHARD_BYTES, ShardWriter, damaged, read_shards
from kogata.engine.text import Tally, utf8_length

Form = Literal["completion", "messages", "text", "label", "tags"]
FORMS: tuple[Form, ...] = ("completion", "messages", "text", "label", "tags")

_NEEDED: dict[str, tuple[str, ...]] = {
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
    "label": ("text", "label"),
    "tags": ("text", "spans"),
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row to learn from.

    Attributes:
        id: names it within the artifact.
        form: what `fields` holds: `completion` (prompt, completion, perhaps system), `messages` (messages,
            perhaps tools), `text` (text), `label` (text, label, perhaps text_pair) or `tags` (text, spans,
            perhaps tokens; see `tag_rows`).
        source: the file and row it was read from, `rows.csv:17`.
        group: rows of one group (a ticket, a customer) share a split.
        fields: the values by role.
    """

    id: str
    form: Form
    source: str = ""
    group: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> list[str]:
        """Lists the texts in it, in the order they are read; tool calls and tools as JSON."""
        if self.form != "messages":
            roles = ("system", "prompt", "text", "text_pair", "completion", "label")
            return [self.fields[role] for role in roles if self.fields.get(role)]
        found = [json.dumps(self.fields["tools"], ensure_ascii=False)] if self.fields.get("tools") else []
        for message in self.fields["messages"]:
            if message.get("content"):
                found.append(message["content"])
            if message.get("tool_calls"):
                found.append(json.dumps(message["tool_calls"], ensure_ascii=False))
        return found

    def messages(self) -> list[dict[str, Any]]:
        """Gives the row as a conversation: of a completion, a label or spans, one question and answer."""
        if self.form == "messages":
            return self.fields["messages"]
        if self.form == "tags":
            return [
                {"role": "user", "content": self.fields["text"]},
                {"role": "assistant", "content": self._marked()},
            ]
        roles = {"completion": ("prompt", "completion"), "label": ("text", "label")}
        asked, answered = roles[self.form]
        question = self.fields[asked]
        if self.fields.get("text_pair"):
            question = f"{question}\n{self.fields['text_pair']}"
        system = self.fields.get("system")
        return [
            *([{"role": "system", "content": system}] if system else []),
            {"role": "user", "content": question},
            {"role": "assistant", "content": self.fields[answered]},
        ]

    def _marked(self) -> str:
        """Writes what is marked: `PER: Anna; LOC: Kyoto`, or a dash."""
        text = self.fields["text"]
        return "; ".join(f"{label}: {text[start:end]}" for start, end, label in self.fields["spans"]) or "–"

    def labels(self) -> set[str]:
        """Gives the labels in it: of a text its label, of marked spans theirs."""
        if self.form == "label":
            return {self.fields["label"]}
        return {span[2] for span in self.fields["spans"]} if self.form == "tags" else set()

    def answer(self) -> str:
        """Gives what is to be learned: completion, label, spans, the last assistant's words, the text."""
        if self.form == "text":
            return self.fields["text"]
        last = self.messages()[-1]
        calls = last.get("tool_calls")
        return (last.get("content") or "") + (json.dumps(calls, ensure_ascii=False) if calls else "")

    def question(self) -> str:
        """Gives what stands before the answer, as plain text; empty for a text."""
        if self.form == "text":
            return ""
        before = self.messages()[:-1]
        return "\n".join(message.get("content") or "" for message in before)

    def to_row(self) -> dict[str, Any]:
        """Gives the line of the artifact."""
        row: dict[str, Any] = {"id": self.id, "form": self.form, "source": self.source}
        if self.group is not None:
            row["group"] = self.group
        return row | self.fields

    @staticmethod
    def from_row(row: dict[str, Any]) -> Example:
        """Builds the example of a line.

        Raises:
            ValueError: the form is unknown, or a field it needs is missing.
        """
        if row.get("form") not in FORMS:
            raise ValueError(f"form {row.get('form')!r}; expected {', '.join(FORMS)}")
        for name in ("id", *_NEEDED[row["form"]]):
            if name not in row:
                raise ValueError(f"no field {name!r}")
        apart = ("id", "form", "source", "group")
        return Example(
            id=row["id"],
            form=row["form"],
            source=row.get("source", ""),
            group=row.get("group"),
            fields={name: value for name, value in row.items() if name not in apart},
        )


class ExampleTally:
    """Counts what goes into the splits of examples: rows, bytes, those of the answers, the longest row.

    `pieces` are the tokens that words, digits and signs will make, `wide_letters` letters of other scripts.
    """

    def __init__(self) -> None:
        self._tally = Tally("examples")
        self._pieces: dict[str, float] = {}
        self._forms: Counter[str] = Counter()
        self._labels: set[str] = set()
        self._more: dict[str, dict[str, int]] = {}

    def add(self, example: Example, split: str) -> None:
        """Counts one example of a split."""
        text = "\n".join(example.texts())
        self._tally.add(split, text)
        more = self._more.setdefault(split, {"answer_bytes": 0, "longest_bytes": 0, "wide_letters": 0})
        pieces, wide = count_pieces(text)
        self._pieces[split] = self._pieces.get(split, 0.0) + pieces
        more["wide_letters"] += wide
        # Marks are places in the text: no text of their own.
        more["answer_bytes"] += utf8_length(example.answer()) if example.form != "tags" else 0
        more["longest_bytes"] = max(more["longest_bytes"], utf8_length(text))
        self._forms[example.form] += 1
        if split == "train":
            self._labels |= example.labels()

    def facts(self) -> Facts:
        """Gives `splits`, `language_hint`, `form` (or `mixed`) and, where there are some, `labels`."""
        facts = self._tally.facts()
        facts["splits"] = {
            split: counts | self._more[split] | {"pieces": round(self._pieces[split])}
            for split, counts in facts["splits"].items()
        }
        facts["form"] = next(iter(self._forms)) if len(self._forms) == 1 else "mixed"
        if self._labels:
            facts["labels"] = sorted(self._labels)
        return facts


class ExamplesWriter:
    """Writes examples to a folder: shards of JSON lines per split, the same bytes every time."""

    def __init__(self, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._shards = ShardWriter(out, shard_bytes)
        self._tally = ExampleTally()

    def write(self, example: Example, split: str = "train") -> None:
        """Appends an example to a split."""
        self._shards.write(split, example.to_row())
        self._tally.add(example, split)

    def close(self) -> Facts:
        """Finishes the shards and gives what `ExampleTally` counted."""
        self._shards.close()
        return self._tally.facts()


def read_examples(folder: Path, split: str) -> Iterator[Example]:
    """Yields the examples of one split, in order.

    Raises:
        DataError: a row is not as `ExamplesWriter` wrote it.
    """
    for where, row in read_shards(folder, split, "examples artifact"):
        try:
            yield Example.from_row(row)
        except ValueError as error:
            raise damaged("examples artifact", where, error) from None
