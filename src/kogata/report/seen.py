"""What training saw, and when: sources, difficulty, windows, what was left out; from the metrics' columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kogata.core.amounts import format_count
from kogata.report.plots import Axis, Point, Series, line_plot, smooth

COLOURS = "abcdef"
"""Of the page; sources beyond them are drawn as one."""
SEEN_LITTLE = "Less than 1% of the text was seen at least once."
COLUMNS = (
    ("difficulty", "Difficulty: 0 the easiest text, 1 the hardest", 1.0),
    ("context", "Tokens of a window", None),
    ("pruned", "Left out of the epoch", 1.0),
    ("weight_deviation", "How far the rows' weights lie apart", None),
)
"""Column of the metrics, what it is called, the top of its axis."""


def seen_plots(rows: Sequence[Mapping[str, Any]], x_name: str, x: Axis) -> list[Markup]:
    """Draws what the samplers told of each step; nothing where training took the text as it came."""
    reach = max(1, len(rows) // 60)
    plots = [_mixture_plot(rows, x_name, x, reach)]
    for name, title, most in COLUMNS:
        points = [(float(row[x_name]), float(row[name])) for row in rows if _numbers(row, x_name, name)]
        if name in ("difficulty", "weight_deviation"):
            points = smooth(points, reach)
        write = format_count if name == "context" else lambda value: f"{value:.2g}"
        axis = Axis(name="", write=write, low=0.0, high=most)
        plots.append(
            line_plot([Series(name=title, points=points, colour="c")], x, axis, title=title, small=True)
        )
    return [plot for plot in plots if plot]


def _mixture_plot(rows: Sequence[Mapping[str, Any]], x_name: str, x: Axis, reach: int) -> Markup:
    """Draws each source's share of the rows; the smallest ones together where there are many."""
    given = [row for row in rows if isinstance(row.get("mixture"), Mapping) and _numbers(row, x_name)]
    totals: dict[str, float] = {}
    for row in given:
        for name, weight in row["mixture"].items():
            totals[name] = totals.get(name, 0.0) + weight
    names = sorted(totals, key=lambda name: -totals[name])
    shown = names if len(names) <= len(COLOURS) else names[: len(COLOURS) - 1]
    series = []
    for name, colour in zip(shown, COLOURS, strict=False):
        series.append(Series(name=name, colour=colour, points=_shares(given, x_name, [name], reach)))
    if len(shown) < len(names):
        rest = _shares(given, x_name, names[len(shown) :], reach)
        series.append(Series(name=f"{len(names) - len(shown)} others", colour=COLOURS[-1], points=rest))
    axis = Axis(name="", write=lambda value: f"{value:.0%}", low=0.0, high=1.0)
    return line_plot(series, x, axis, title="Share of each source", small=True)


def _shares(rows: Sequence[Mapping[str, Any]], x_name: str, names: Sequence[str], reach: int) -> list[Point]:
    points = [(float(row[x_name]), sum(row["mixture"].get(name, 0.0) for name in names)) for row in rows]
    return smooth(points, reach)


def _numbers(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), int | float) for name in names)


def seen_notes(training: Mapping[str, Any]) -> list[str]:
    """Says what the facts of a finished training tell of what it saw."""
    notes = []
    epochs = training.get("source_epochs")
    if isinstance(epochs, Mapping) and epochs:
        seen = ", ".join(f"{name} {times:.3g}" for name, times in epochs.items())
        notes.append(f"How often each source was seen: {seen}.")
    if training.get("ran_out"):
        notes.append(f"Run out, so that the others gave more: {', '.join(training['ran_out'])}.")
    if training.get("seen_share") is not None:
        share = training["seen_share"]
        notes.append(f"{share:.0%} of the text was seen at least once." if share >= 0.01 else SEEN_LITTLE)
    if training.get("epochs_begun") is not None:
        notes.append(f"{training['epochs_begun']} epochs begun; where text is left out they are shorter.")
    if isinstance(training.get("pieces"), Mapping) and training["pieces"]:
        pieces = ", ".join(f"{count:,} of {length}" for length, count in training["pieces"].items())
        notes.append(f"Pieces of documents by their tokens: {pieces}.")
    return notes
