"""What a method is given: texts with labels, the encoder they may use, and sizes to forecast by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kogata.core.errors import DataError
from kogata.core.registry import suggest
from kogata.core.stage import Facts

if TYPE_CHECKING:
    from kogata.engine.encoders import Encoder

Text = str | tuple[str, str]
"""A text, or a pair of texts."""
ENGLISH = 4.4
"""Bytes of a token of everyday English in a vocabulary of words and pieces."""


class Workshop:
    """What all methods of one run share: the encoder as it was given, loaded once."""

    def __init__(self, folder: Path | None, context: int | None = None) -> None:
        self.folder, self.context = folder, context

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, its weights untouched. A method that trains takes a copy."""
        from kogata.engine.encoders import Encoder

        assert self.folder is not None, "no encoder was given"
        return Encoder.load(self.folder, self.context)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts and the labels they should get."""

    texts: Sequence[Text]
    targets: np.ndarray
    """Each text's label as a number, int64."""
    names: list[str]
    """The labels, sorted."""
    workshop: Workshop
    seed: int = 0
    groups: np.ndarray | None = None
    """Each row's group by number; rows of one are never parted when methods are judged."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.names)

    def part(self, rows: np.ndarray) -> Task:
        """Gives some of the rows."""
        groups = None if self.groups is None else self.groups[rows]
        texts = [self.texts[i] for i in rows]
        return replace(self, texts=texts, targets=self.targets[rows], groups=groups)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a forecast goes by."""

    rows: int
    classes: int
    characters: int
    """Of all rows."""
    tokens: int
    """Of all rows, special ones included, as far as a row is read."""
    width: int = 0
    """Of the encoder's vectors; 0 without an encoder."""
    body: int = 0
    """Weights of the encoder's layers."""
    layers: int = 0
    parameters: int = 0
    """Of the whole encoder."""

    @property
    def per_class(self) -> float:
        """Rows of a label, on average."""
        return self.rows / max(1, self.classes)

    def share(self, part: float) -> Size:
        """Gives the size of a part of the rows."""
        return replace(
            self,
            rows=max(1, round(self.rows * part)),
            characters=round(self.characters * part),
            tokens=round(self.tokens * part),
        )


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a method will take, beyond the bare process."""

    seconds: float
    bytes: int
    tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A split's texts, labels and groups; where a row names no group, its text is one."""

    texts: list[Text]
    labels: list[str]
    groups: np.ndarray

    def task(self, names: list[str], workshop: Workshop, seed: int) -> Task:
        """Gives the rows with labels by number."""
        number = {name: at for at, name in enumerate(names)}
        targets = np.array([number[label] for label in self.labels], dtype=np.int64)
        return Task(
            texts=self.texts, targets=targets, names=names, workshop=workshop, seed=seed, groups=self.groups
        )


def read_split(folder: Path, split: str, known: list[str] | None = None) -> Rows:
    """Reads the labelled rows of a split.

    Args:
        folder: of an examples artifact.
        split: which.
        known: the labels of the training rows; another is an error.

    Raises:
        DataError: a row without text or label, or a label that no training row has.
    """
    from kogata.engine.examples import read_examples

    texts: list[Text] = []
    labels: list[str] = []
    groups: list[int] = []
    numbers: dict[str, int] = {}
    for row in read_examples(folder, split):
        text, label = row.fields.get("text"), row.fields.get("label")
        if not isinstance(label, str) or not label.strip():
            raise _bad_row(row.source, "label", label, "a label")
        if not isinstance(text, str) or not text.strip():
            raise _bad_row(row.source, "text", text, "a text that is not empty")
        if known is not None and label not in known:
            near = suggest(label, known)
            raise DataError(
                f"a {split} row has a label that no training row has",
                where=f"{row.source}, field label",
                found=repr(label),
                expected=f"one of the {len(known)} labels of the training rows",
                remedy=(f"did you mean {near!r}? Else " if near else "")
                + "add training rows of it, or take the row out",
            )
        pair = row.fields.get("text_pair")
        texts.append((text, pair) if isinstance(pair, str) and pair.strip() else text)
        labels.append(label)
        group = f"text {join(texts[-1])}" if row.group is None else f"group {row.group}"
        groups.append(numbers.setdefault(group, len(numbers)))
    return Rows(texts=texts, labels=labels, groups=np.array(groups, dtype=np.int64))


def names_of(labels: Iterable[str]) -> list[str]:
    """Gives the labels there are, sorted.

    Raises:
        DataError: fewer than two.
    """
    names = sorted(set(labels))
    if len(names) < 2:
        raise DataError(
            "there is nothing to tell apart",
            where="split train, field label",
            found=f"{len(names)} label{'' if len(names) == 1 else 's'}"
            + (f" ({names[0]!r})" if names else ""),
            expected="training rows of two labels at least",
            remedy="check `columns: {label: …}` of data.read, or add rows of another label",
        )
    return names


def join(text: Text) -> str:
    """Gives a pair as one text, for methods that know no pairs."""
    return text if isinstance(text, str) else f"{text[0]}\n{text[1]}"


def size_of(examples: Facts, model: Facts | None, context: int | None = None) -> Size:
    """Estimates the size of a task from facts; what is not known is taken at a usual value."""
    from kogata.engine.inference_costs import bytes_per_token
    from kogata.engine.mask_costs import block_weights

    train = (examples.get("splits") or {}).get("train") or {}
    rows = int(train.get("examples") or 1000)
    # What a method reads is the texts; the bytes of a split count the labels too.
    size = max(rows, int(train.get("bytes") or 80 * rows) - int(train.get("answer_bytes") or 0))
    shape: dict[str, Any] = (model or {}).get("encoder") or {}
    parameters = int((model or {}).get("parameters") or 0)
    width, layers = int(shape.get("width") or 384), int(shape.get("layers") or 6)
    inner = int(shape.get("ffn_width") or 4 * width)
    body = layers * block_weights(str((model or {}).get("architecture")), width, inner)
    language = examples.get("language_hint")
    usual = ENGLISH if language == "en" else bytes_per_token((model or {}).get("vocab_size"), language)
    each = size / usual / rows + 2
    return Size(
        rows=rows,
        classes=len(examples.get("labels") or ()) or 10,
        characters=min(size, int(train.get("characters") or size)),
        tokens=round(rows * min(each, context or 512)),
        width=width if model else 0,
        body=body if model else 0,
        layers=layers if model else 0,
        parameters=parameters if model else 0,
    )


def _bad_row(source: str, field: str, found: object, expected: str) -> DataError:
    return DataError(
        f"a row has no {field}",
        where=f"{source}, field {field}",
        found="nothing" if found in (None, "") else repr(found)[:80],
        expected=expected,
        remedy="fill it in or take the row out; `kogata check` lists all such rows",
    )
