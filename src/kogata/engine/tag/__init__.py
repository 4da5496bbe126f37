"""Tagging texts: one method a file, found by the registry. A trained tagger is loaded and asked here.

A method is a module with `Settings`, `NEEDS_ENCODER`, `suits(size)` (why `auto` leaves it out, or None),
`forecast(settings, size, machine)`, `fit(settings, task, bench)` and `load(folder)`. Importing it imports no
torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kogata.core.errors import DataError
from kogata.core.registry import registry

if TYPE_CHECKING:
    from kogata.engine.tag._task import Marked, Place, Row, Scheme

ABOUT = "tagger.json"
"""Beside the weights: which method made them, the labels, and what the classes are."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something a tagger found in a text: text[start:end] is `text`."""

    start: int
    end: int
    label: str
    text: str
    probability: float
    """The mean over its tokens."""


class Tagger(Protocol):
    """A trained tagger."""

    scheme: Scheme

    def mark(self, rows: Sequence[Row]) -> list[list[Marked]]:
        """Finds each row's spans with their probabilities, in order; of plain tags, one a token."""
        ...

    def places(self, rows: Sequence[Row]) -> list[Sequence[Place]]:
        """Gives what is tagged as a whole in each row: tokens, words, pieces."""
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes it to a folder and gives its facts."""
        ...


def is_tagger(folder: Path) -> bool:
    """Says whether a folder, or the model in a run's folder, was made by train.tag."""
    return _place(folder) is not None


def load(folder: Path | str) -> Tagger:
    """Loads what train.tag made.

    Args:
        folder: the model's folder, or its run's.

    Raises:
        DataError: there is no tagger.
    """
    place = _place(Path(folder))
    if place is None:
        raise DataError(
            "the folder holds no tagger",
            where=str(folder),
            found=f"no {ABOUT}",
            expected="a model that train.tag made",
        )
    about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
    return registry.variant("engine.tag", about["method"]).load(place)


def predict(tagger: Tagger, texts: Sequence[str | Sequence[str]]) -> list[list[Found]]:
    """Finds what is marked in new texts.

    Args:
        tagger: what `load` gave.
        texts: a text each, of any length; or its tokens, which are then marked as wholes.
    """
    from kogata.engine.tag._task import Row

    rows = [Row.of(text) for text in texts]
    return [
        [
            Found(start=start, end=end, label=label, text=row.text[start:end], probability=round(share, 4))
            for start, end, label, share in found
        ]
        for row, found in zip(rows, tagger.mark(rows), strict=True)
    ]


def score_rows(tagger: Tagger, examples: Path, split: str) -> dict[str, Any]:
    """Scores a tagger on a split: precision, recall and F1 of whole spans, of all and by label.

    Raises:
        DataError: the split holds no row, or one with a label that training never saw.
    """
    from kogata.engine.tag._scores import scores
    from kogata.engine.tag._task import read_rows

    rows = read_rows(examples, split, tagger.scheme)
    if not rows:
        raise DataError(f"no {split} rows to score", where=f"split {split}", found="no rows")
    return {**scores(rows, tagger.mark(rows), tagger.scheme), "split": split}


def _place(folder: Path) -> Path | None:
    return next((place for place in (folder, folder / "model") if (place / ABOUT).is_file()), None)
