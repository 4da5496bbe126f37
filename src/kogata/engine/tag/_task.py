"""What a tagger is taught: texts with marked spans, the units they are made of, the classes of a unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kogata.core.errors import DataError
from kogata.core.registry import suggest
from kogata.core.stage import Facts
from kogata.engine.classify._task import Size
from kogata.engine.classify._task import size_of as size_of_texts
from kogata.engine.tag_rows import OUTSIDE, Span, joined, unspaced

if TYPE_CHECKING:
    from kogata.engine.examples import Example
    from kogata.engine.tag._encoder import TokenEncoder

Place = tuple[int, int]
"""Start and end in characters, the end exclusive."""
Marked = tuple[int, int, str, float]
"""A span with its probability."""
_UNIT = re.compile(r"[^\W\d_]+|\d+|\S")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A text to tag, with what is marked in it where that is known."""

    text: str
    spans: tuple[Span, ...] = ()
    tokens: tuple[Place, ...] | None = None
    """Where the tokens lie, if the row came as tokens."""
    source: str = ""

    @staticmethod
    def of(text: str | Sequence[str]) -> Row:
        """Makes the row of a new text, or of its tokens."""
        if isinstance(text, str):
            return Row(text=text)
        words = [word for word in text if word.strip()]
        made, places = joined(words)
        return Row(text=made, tokens=tuple(places))

    @cached_property
    def units(self) -> tuple[Place, ...]:
        """The row's tokens; of a text without: words, numbers, signs, and single characters of Japanese."""
        return self.tokens if self.tokens is not None else units_of(self.text)


def units_of(text: str) -> tuple[Place, ...]:
    """Parts a text into runs of letters, runs of digits and signs; scripts without spaces into characters."""
    found: list[Place] = []
    for match in _UNIT.finditer(text):
        start, end = match.span()
        for place in range(start, end):
            # A character of a script without spaces stands for itself; what lies between them is a run.
            if unspaced(text[place]):
                if start < place:
                    found.append((start, place))
                found.append((place, place + 1))
                start = place + 1
        if start < end:
            found.append((start, end))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """The classes of a unit.

    Attributes:
        labels: what is told apart, sorted.
        plain: one class a label, as parts of speech are tagged; else `O`, and `B-` and `I-` of each (IOB2).
    """

    labels: tuple[str, ...]
    plain: bool = False

    @cached_property
    def classes(self) -> list[str]:
        """The classes by number."""
        if self.plain:
            return list(self.labels)
        return [OUTSIDE, *(f"{start}-{label}" for label in self.labels for start in "BI")]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    def begin(self, label: str) -> int:
        """Gives the class of a span's first unit."""
        return self._numbers[label] if self.plain else 1 + 2 * self._numbers[label]

    def inside(self, label: str) -> int:
        """Gives the class of a span's other units."""
        return self._numbers[label] if self.plain else 2 + 2 * self._numbers[label]

    def targets(self, places: Sequence[Place], spans: Sequence[Span]) -> np.ndarray:
        """Gives the class of each place, int64; −1 where a plain scheme has none.

        A place belongs to the span that holds half of its characters or more.
        """
        found = np.full(len(places), -1 if self.plain else 0, dtype=np.int64)
        first, begun = 0, -1
        for at, (start, end) in enumerate(places):
            while first < len(spans) and spans[first][1] <= start:
                first += 1
            for number in range(first, len(spans)):
                low, high, label = spans[number]
                if low >= end:
                    break
                if 2 * (min(high, end) - max(low, start)) >= end - start > 0:
                    found[at] = self.inside(label) if begun == number else self.begin(label)
                    begun = number
                    break
        return found

    def marked(self, places: Sequence[Place], classes: Sequence[int], shares: np.ndarray) -> list[Marked]:
        """Joins the classes of places to spans: strictly as IOB2 says; of a plain scheme one a place."""
        if self.plain:
            return [
                (start, end, self.labels[number], float(share))
                for (start, end), number, share in zip(places, classes, shares, strict=True)
            ]
        from kogata.engine.tag._scores import spans_of

        found = []
        for first, last, label in spans_of([self.classes[number] for number in classes]):
            share = float(np.mean(shares[first:last]))
            found.append((places[first][0], places[last - 1][1], label, share))
        return found


class Workshop:
    """What all methods of one run share: the encoder as it was given, loaded once."""

    def __init__(self, folder: Path | None, scheme: Scheme, context: int | None = None) -> None:
        self.folder, self.scheme, self.context = folder, scheme, context

    @cached_property
    def encoder(self) -> TokenEncoder:
        """The encoder, its weights untouched. A method that trains takes a copy."""
        from kogata.engine.tag._encoder import TokenEncoder

        assert self.folder is not None, "no encoder was given"
        return TokenEncoder.base(self.folder, self.scheme, self.context)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Rows to learn from, and how."""

    rows: Sequence[Row]
    scheme: Scheme
    workshop: Workshop
    groups: np.ndarray
    """Each row's group by number; rows of one are never parted when methods are judged."""
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> Task:
        """Gives some of the rows."""
        return replace(self, rows=[self.rows[i] for i in rows], groups=self.groups[rows])

    @cached_property
    def rarest(self) -> np.ndarray:
        """Gives each row a class to spread evenly over folds: the rarest label in it, 0 without any."""
        counts = {label: 0 for label in self.scheme.labels}
        for row in self.rows:
            for label in {span[2] for span in row.spans}:
                counts[label] += 1
        numbers = {label: number + 1 for number, label in enumerate(self.scheme.labels)}
        return np.array(
            [min(((counts[s[2]], numbers[s[2]]) for s in row.spans), default=(0, 0))[1] for row in self.rows],
            dtype=np.int64,
        )


def scheme_of(rows: Iterable[Example]) -> Scheme:
    """Says what the training rows tell apart.

    Plain tags stay one class a token where spaces part the tokens. Where none do, as in Japanese, B- and I-
    are kept besides: then the words of a new text are found with their tags.

    Raises:
        DataError: nothing to tell apart.
    """
    labels: set[str] = set()
    plain = parted = True
    count = 0
    for row in rows:
        count += 1
        labels |= row.labels()
        tokens = row.fields.get("tokens")
        if not row.fields.get("plain"):
            # Of tokens that are all O nothing can be told: plain rows may have such neighbours.
            plain = plain and tokens is not None and not row.fields["spans"]
        parted = parted and all(a[1] < b[0] for a, b in zip(tokens or (), (tokens or ())[1:], strict=False))
    plain = plain and parted and bool(labels)
    labels -= set() if plain else {OUTSIDE}
    if len(labels) < (2 if plain else 1):
        raise DataError(
            "there is nothing to tell apart",
            where="split train",
            found=f"{count:,} rows, {'one tag' if plain else 'none with a span'}",
            expected="rows with spans, or with tokens of several tags",
            remedy="check `columns` of data.read (tokens and tags, or text and spans), or add rows",
        )
    return Scheme(labels=tuple(sorted(labels)), plain=plain)


def read_rows(folder: Path, split: str, scheme: Scheme) -> list[Row]:
    """Reads the rows of a split.

    Raises:
        DataError: a label that no training row has, or a row that is not marked.
    """
    return [row for row, _ in _rows(folder, split, scheme)]


def read_task(folder: Path, scheme: Scheme, workshop: Workshop, seed: int, split: str = "train") -> Task:
    """Reads a split as a task; rows of one group, and copies of a text, stay together."""
    rows: list[Row] = []
    groups: list[int] = []
    numbers: dict[str, int] = {}
    for row, group in _rows(folder, split, scheme):
        rows.append(row)
        name = f"text {row.text}" if group is None else f"group {group}"
        groups.append(numbers.setdefault(name, len(numbers)))
    return Task(
        rows=rows, scheme=scheme, workshop=workshop, groups=np.array(groups, dtype=np.int64), seed=seed
    )


def _rows(folder: Path, split: str, scheme: Scheme) -> Iterable[tuple[Row, str | None]]:
    from kogata.engine.examples import read_examples

    for row in read_examples(folder, split):
        if row.form != "tags":
            raise DataError(
                "a row marks nothing",
                where=row.source,
                found=f"a row of the form {row.form}",
                expected="tokens and tags, or a text and spans",
            )
        tokens = row.fields.get("tokens")
        spans = [(int(start), int(end), str(label)) for start, end, label in row.fields["spans"]]
        if scheme.plain and not spans and tokens:
            spans = [(start, end, OUTSIDE) for start, end in tokens]
        elif not scheme.plain:
            spans = [span for span in spans if span[2] != OUTSIDE]
        for number, (start, end, label) in enumerate(spans):
            if label not in scheme.labels:
                near = suggest(label, scheme.labels)
                raise DataError(
                    f"a {split} row has a label that no training row has",
                    where=f"{row.source}, span {number + 1} ({row.fields['text'][start:end]!r})",
                    found=repr(label),
                    expected=f"one of {', '.join(scheme.labels[:12])}"
                    + (" …" if len(scheme.labels) > 12 else ""),
                    remedy=(f"did you mean {near!r}? Else " if near else "")
                    + "add training rows with it, or take the row out",
                )
        places = None if tokens is None else tuple((int(start), int(end)) for start, end in tokens)
        yield (
            Row(text=row.fields["text"], spans=tuple(spans), tokens=places, source=row.source),
            row.group,
        )


def size_of(examples: Facts, model: Facts | None, context: int | None = None) -> Size:
    """Estimates the size of a task from facts: nothing of a text is cut off, and windows overlap."""
    size: Size = size_of_texts({**examples, "labels": None}, model, 1 << 30)
    labels = len(examples.get("labels") or ()) or 5
    each = size.tokens / max(1, size.rows)
    room = min(context or 512, (model or {}).get("context") or 512)
    overlap = 4 / 3 if each > room else 1.0
    return replace(size, classes=2 * labels + 1, tokens=round(size.tokens * overlap))


def unreachable(rows: Sequence[Row], places: Sequence[Sequence[Place]]) -> int:
    """Counts spans that do not begin and end where places do: no tagger of these can mark them exactly."""
    count = 0
    for row, some in zip(rows, places, strict=True):
        starts, ends = {start for start, _ in some}, {end for _, end in some}
        count += sum(start not in starts or end not in ends for start, end, _ in row.spans)
    return count
