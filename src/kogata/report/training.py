"""The training section of a run's page: the loss in bits per byte where the tokens' bytes are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kogata.core.amounts import counted, format_count, format_seconds
from kogata.core.receipt import Receipt
from kogata.report.facts import bytes_per_token
from kogata.report.plots import Axis, Point, Series, clock_text, clock_ticks, line_plot, smooth
from kogata.report.seen import seen_notes, seen_plots

HEAD_SHARE = 0.04
"""The steep beginning, which may run off the top of the plot, so that the rest can be told apart."""


def training_parts(metrics: Sequence[dict[str, Any]], receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Gives the plots of each training stage."""
    density = bytes_per_token(receipts)
    own = {receipt.label: receipt for receipt in receipts if receipt.parent is None}
    parts = []
    for label, rows in stage_rows(metrics, receipts).items():
        training = own[label].facts.get("training") if label in own else None
        part = _part(label, rows, density, training or {})
        if part:
            parts.append(part)
    return parts


def stage_rows(
    metrics: Sequence[dict[str, Any]], receipts: Sequence[Receipt]
) -> dict[str, list[dict[str, Any]]]:
    """Gives each training stage's rows in the order of their steps, without the trials inside a stage."""
    by_label: dict[str, dict[Any, dict[str, Any]]] = {}
    for row in metrics:
        # After a resume, steps since the checkpoint stand twice: the later row is the one that counts.
        steps = by_label.setdefault(str(row.get("stage", "training")), {})
        steps[row.get("step", len(steps))] = row
    own = {receipt.label for receipt in receipts if receipt.parent is None}
    tried = {receipt.label for receipt in receipts if receipt.parent is not None} - own
    return {
        label: [
            steps[step] for step in sorted(steps, key=lambda step: (not isinstance(step, int | float), step))
        ]
        for label, steps in by_label.items()
        if label not in tried  # Of a trial inside a stage the verdict stands where the stage tells of it.
    }


def points_of(rows: Sequence[dict[str, Any]], x: str, y: str, factor: float = 1.0) -> list[Point]:
    """Gives the rows' values of two columns as points; rows without a number in both are passed over."""
    return [
        (float(row[x]), float(row[y]) * factor)
        for row in rows
        if isinstance(row.get(x), int | float) and isinstance(row.get(y), int | float)
    ]


def _part(
    label: str, rows: list[dict[str, Any]], density: float | None, training: dict[str, Any]
) -> dict[str, Any] | None:
    x_name, x = axis_of(is_timed(rows))
    factor = 1 / math.log(2) / density if density else 1.0
    raw = points_of(rows, x_name, "loss", factor)
    heldout = points_of(rows, x_name, "heldout_bits_per_byte")
    if not raw and not heldout:
        return None
    lines = smooth(raw, reach=max(1, len(raw) // 40))
    unit = "bits per byte" if density else "nats per token"
    loss = Markup("")
    if raw:
        shown = heldout if density else points_of(rows, x_name, "heldout_loss")
        series = [
            Series(name="each step", points=raw, colour="a", faint=True),
            Series(name="training (averaged)", points=lines, colour="a"),
            Series(name="held-out", points=shown, colour="b", dots=True),
        ]
        low, high = view_of(lines, shown)
        y = Axis(name=unit, write=lambda value: f"{value:.4g}", low=low, high=high)
        loss = line_plot(series, x, y, title=f"Loss, {unit}")
    if heldout and (not density or not raw):
        y = Axis(name="bits per byte", write=lambda value: f"{value:.4g}")
        dots = [Series(name="held-out", points=heldout, colour="b", dots=True)]
        loss += line_plot(dots, x, y, title="Held-out, bits per byte")
    rate = Axis(name="", write=rate_text, low=0.0)
    speed = Axis(name="", write=format_count, low=0.0)
    small = [
        line_plot([Series(name=title, points=points, colour="c")], x, axis, title=title, small=True)
        for title, name, axis in (
            ("Learning rate", "lr", rate),
            ("Tokens per second", "tokens_per_second", speed),
            ("Gradient norm", "grad_norm", _norm_axis(rows)),
        )
        if (points := points_of(rows, x_name, name))
    ]
    note = "Training loss is of the batch at hand; held-out is of whole documents, by the rule of the score."
    return {
        "label": label,
        "summary": _summary(rows),
        "loss": loss,
        "small": small,
        "seen": seen_plots(rows, x_name, x),
        "seen_notes": seen_notes(training),
        "note": note if density and heldout and raw else None,
    }


def is_timed(rows: Sequence[dict[str, Any]]) -> bool:
    """Says whether most rows hold the seconds that had passed."""
    return sum(isinstance(row.get("seconds"), int | float) for row in rows) > len(rows) / 2


def axis_of(timed: bool) -> tuple[str, Axis]:
    """Gives the column that a plot of training runs over, and its axis: time, else steps."""
    if timed:
        return "seconds", Axis(name="at", write=clock_text, low=0.0, ticks=clock_ticks)
    return "step", Axis(name="step", write=format_count, low=0.0)


def rate_text(value: float) -> str:
    """Writes a learning rate in few characters: `0.02`, `7.5e-4`."""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.2g}"
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}"


def _norm_axis(rows: Sequence[dict[str, Any]]) -> Axis:
    values = sorted(row["grad_norm"] for row in rows if isinstance(row.get("grad_norm"), int | float))
    high = 1.3 * values[int(0.98 * (len(values) - 1))] if values else None
    return Axis(name="", write=lambda value: f"{value:.2g}", low=0.0, high=high or None)


def view_of(lines: Sequence[Point], heldout: Sequence[Point]) -> tuple[float, float]:
    """Chooses the part of the y axis to show: everything after the steep beginning."""
    begin = lines[0][0] + HEAD_SHARE * (lines[-1][0] - lines[0][0])
    kept = [y for x, y in [*lines, *heldout] if x >= begin] or [y for _, y in lines]
    low, high = min(kept), max(kept)
    margin = 0.08 * (high - low) or 0.05 * (abs(high) or 1.0)
    return low - margin, high + margin


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    last = rows[-1]
    parts = []
    if isinstance(last.get("step"), int | float):
        parts.append(counted(last["step"], "step"))
    if isinstance(last.get("tokens"), int | float):
        parts.append(f"{format_count(last['tokens'])} tokens")
    if isinstance(last.get("seconds"), int | float):
        parts.append(format_seconds(last["seconds"]))
    speeds = sorted(
        r["tokens_per_second"] for r in rows if isinstance(r.get("tokens_per_second"), int | float)
    )
    if speeds:
        parts.append(f"{format_count(speeds[len(speeds) // 2])} tokens/s")
    shares = sorted(r["gemm_share"] for r in rows if isinstance(r.get("gemm_share"), int | float))
    if shares:
        parts.append(f"{shares[len(shares) // 2]:.0%} of the machine's matrix speed")
    return " · ".join(parts)
