"""How good a tagger is: precision, recall and F1 of whole spans, as seqeval counts them under strict IOB2.

A span found counts where start, end and label are those of a marked one. Of a plain scheme every token is a
span, `O` left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kogata.engine.tag._task import Row, Scheme
from kogata.engine.tag_rows import OUTSIDE

RESAMPLES = 200
"""Of the bootstrap over rows for a standard error."""


def spans_of(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Gives the spans of a row of tags as (first, behind the last, label), strictly as IOB2 says.

    A span begins with B- and goes on with I- of the same label; an I- that continues none is no span.
    """
    found: list[tuple[int, int, str]] = []
    open_ = False
    for at, tag in enumerate(tags):
        start, _, label = tag.partition("-")
        if start == "B":
            found.append((at, at + 1, label))
            open_ = True
        elif start == "I" and open_ and found[-1][2] == label:
            found[-1] = (found[-1][0], at + 1, label)
        else:
            open_ = False
    return found


def scores(rows: Sequence[Row], guesses: Sequence[Sequence[Sequence[Any]]], scheme: Scheme) -> dict[str, Any]:
    """Scores the spans found in rows.

    Args:
        rows: with what is marked.
        guesses: (start, end, label, …) of each row.
        scheme: the classes.

    Returns:
        precision, recall, f1 of all spans (micro) with the standard error of f1, macro_f1 over labels,
        token_accuracy over the rows' units, by_label, the numbers of rows, spans and tokens.
    """
    counts = [_counts(row, found) for row, found in zip(rows, guesses, strict=True)]
    labels = sorted({label for some in counts for kind in some for label in kind})
    by_label = {}
    for label in labels:
        right, said, marked = (sum(some[kind][label] for some in counts) for kind in range(3))
        by_label[label] = {**_rates(right, said, marked), "spans": marked}
    totals = _totals(counts)
    right, said, marked = (int(total) for total in totals.sum(0))
    agreed, units = 0, 0
    for row, found in zip(rows, guesses, strict=True):
        truth = scheme.targets(row.units, row.spans)
        known = [tuple(span[:3]) for span in found if span[2] in scheme.labels]
        agreed += int((truth == scheme.targets(row.units, known)).sum())
        units += len(truth)
    every = [part["f1"] for part in by_label.values()]
    return {
        **_rates(right, said, marked),
        "standard_error": round(float(np.std(_f1(_drawn(totals)))), 6),
        "macro_f1": round(sum(every) / len(every), 6) if every else 0.0,
        "token_accuracy": round(agreed / units, 6) if units else 0.0,
        "by_label": by_label,
        "n": len(rows),
        "spans": marked,
        "tokens": units,
    }


def lead(rows: Sequence[Row], first: Sequence[Any], second: Sequence[Any]) -> tuple[float, float]:
    """Gives by how much the first's F1 is higher on the same rows, and the standard error of that."""
    both = [
        _totals([_counts(row, found) for row, found in zip(rows, guesses, strict=True)])
        for guesses in (first, second)
    ]
    gap = float(_f1(both[0].sum(0)[None])[0] - _f1(both[1].sum(0)[None])[0])
    # The same rows are drawn for both: what they share in difficulty cancels out.
    drawn = [_f1(_drawn(totals)) for totals in both]
    return gap, float(np.std(drawn[0] - drawn[1]))


def mixed_up(rows: Sequence[Row], guesses: Sequence[Any], most: int = 5) -> list[Any]:
    """Lists what goes wrong most often: [marked, found, times]; a dash where nothing is."""
    wrong: Counter[tuple[str, str]] = Counter()
    for row, found in zip(rows, guesses, strict=True):
        truth = {(start, end): label for start, end, label in _kept(row.spans)}
        said = {(start, end): label for start, end, label in _kept(found)}
        for place in truth.keys() | said.keys():
            pair = (truth.get(place, "–"), said.get(place, "–"))
            wrong[pair] += pair[0] != pair[1]
    return [[*pair, count] for pair, count in wrong.most_common(most) if count]


def _kept(spans: Iterable[Sequence[Any]]) -> set[tuple[int, int, str]]:
    return {(span[0], span[1], span[2]) for span in spans if span[2] != OUTSIDE}


def _counts(row: Row, found: Sequence[Sequence[Any]]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Counts by label: spans found rightly, found, and marked."""
    truth, said = _kept(row.spans), _kept(found)
    return tuple(Counter(span[2] for span in some) for some in (truth & said, said, truth))  # type: ignore[return-value]


def _totals(counts: Sequence[tuple[Counter[str], ...]]) -> np.ndarray:
    """Gives each row's spans right, found and marked, int64 [rows, 3]."""
    return np.array([[sum(kind.values()) for kind in some] for some in counts], dtype=np.int64).reshape(-1, 3)


def _drawn(totals: np.ndarray) -> np.ndarray:
    """Draws the rows again, always the same way; gives the sums, [RESAMPLES, 3]."""
    n = len(totals)
    chance = np.random.default_rng(0)
    return chance.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ totals


def _f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[:, 0] / np.maximum(1, totals[:, 1] + totals[:, 2])


def _rates(right: int, said: int, marked: int) -> dict[str, float]:
    precision, recall = right / said if said else 0.0, right / marked if marked else 0.0
    f1 = 2 * right / (said + marked) if said + marked else 0.0
    assert not math.isnan(f1)
    return {"precision": round(precision, 6), "recall": round(recall, 6), "f1": round(f1, 6)}
