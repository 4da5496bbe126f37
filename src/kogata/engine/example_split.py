"""Splits of examples: by the question's hash, rows of one group and copies of one question together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kogata.core.errors import DataError
from kogata.engine.examples import Example
from kogata.engine.splits import choose_lowest, content_hash

LEAST_ROWS = 20
"""Rows that a split should have to be judged on …"""
MOST = 0.1
"""… as long as that is no more than this share, unless more is asked."""


def rows_wanted(share: float, rows: int) -> int:
    """Gives how many rows a split gets: its share, but enough to judge on where that is affordable."""
    return max(1, math.ceil(share * rows), min(LEAST_ROWS, round(MOST * rows))) if share else 0


def split_examples(
    examples: Sequence[Example], shares: Mapping[str, float], *, where: str
) -> dict[str, list[Example]]:
    """Sets rows apart: those whose question has the lowest hashes, whatever the seed and the order.

    Rows with one question, or of one group, share a split: nothing that is judged was trained on. Every
    label keeps a row in training, for what was never seen cannot be known.

    Args:
        examples: all rows.
        shares: `test` and `heldout` → share; 0 for none.
        where: what they were read from, for the error.

    Raises:
        DataError: too few rows, or too few groups.
    """
    found: dict[str, list[Example]] = {"test": [], "heldout": [], "train": []}
    wanted = {name: float(rows_wanted(share, len(examples))) for name, share in shares.items() if share}
    if not wanted:
        return {"train": list(examples)}
    units = _units(examples)
    weight: dict[int, int] = {}
    for unit in units:
        weight[unit] = weight.get(unit, 0) + 1
    # Where rows come in groups, a split takes at least one whole group.
    wanted = {name: max(rows, float(min(weight.values(), default=1))) for name, rows in wanted.items()}
    places = choose_lowest(weight, wanted)
    full = len(places) == len(weight)
    _keep_labels(examples, units, places)
    if full or any(name not in places.values() for name in wanted):
        raise _too_few(examples, len(weight), wanted, where)
    for example, unit in zip(examples, units, strict=True):
        found[places.get(unit, "train")].append(example)
    return {name: rows for name, rows in found.items() if rows}


def _keep_labels(examples: Sequence[Example], units: Sequence[int], places: dict[int, str]) -> None:
    """Puts rows back to training, the lowest hashes first, until it has a row of every label."""
    labels: dict[int, set[str]] = {}
    for example, unit in zip(examples, units, strict=True):
        labels.setdefault(unit, set()).update(example.labels())
    known = {label for unit, mine in labels.items() if unit not in places for label in mine}
    for unit in sorted(places):
        mine = labels.get(unit, set())
        if not mine <= known:
            del places[unit]
            known |= mine


def _too_few(examples: Sequence[Example], groups: int, wanted: Mapping[str, float], where: str) -> DataError:
    labels = {label for example in examples for label in example.labels()}
    more = f", {len(labels)} labels" if labels else ""
    return DataError(
        "there are too few rows to hold some out",
        where=where,
        found=f"{len(examples)} rows in {groups} groups that stay together{more}",
        expected=f"rows for {' and '.join(wanted)} besides those to train on"
        + (", of every label" if labels else ""),
        remedy="give more rows, name another file (heldout: other.csv), or go without (heldout: 0)",
    )


def question_hash(example: Example) -> int:
    """Hashes what an example asks; of a text, the text."""
    return content_hash(example.question() or example.answer())


def _units(examples: Sequence[Example]) -> list[int]:
    """Names the unit of each row, by the lowest hash of a question in it."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    hashes = [question_hash(example) for example in examples]
    for example, name in zip(examples, hashes, strict=True):
        if example.group is not None:
            parents[root(f"question:{name}")] = root(f"group:{example.group}")
    lowest: dict[str, int] = {}
    roots = [root(f"question:{name}") for name in hashes]
    for name, unit in zip(hashes, roots, strict=True):
        lowest[unit] = min(name, lowest.get(unit, name))
    return [lowest[unit] for unit in roots]
