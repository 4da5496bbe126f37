"""What the runs of a comparison tell: differing settings, what came of them, what was shared, loss curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kogata.core.amounts import format_count, format_seconds
from kogata.core.receipt import Receipt
from kogata.report.cards import as_recipe
from kogata.report.choosing import Variant
from kogata.report.facts import bytes_per_token
from kogata.report.page import newest, read_lines
from kogata.report.plots import Axis, Series, line_plot, smooth
from kogata.report.training import axis_of, is_timed, points_of, stage_rows, view_of


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One run of a comparison: a variant with a seed."""

    variant: Variant
    number: int
    """Of the seed, from 0."""
    seed: str
    folder: Path
    link: str
    """To its page, from the comparison's folder on."""
    receipts: list[Receipt]
    metrics: list[dict[str, Any]]

    @property
    def own(self) -> list[Receipt]:
        """The receipts of the recipe's own stages, without the trials inside them."""
        return [receipt for receipt in self.receipts if receipt.parent is None]


def read_runs(
    folder: Path, variants: Sequence[Variant], folders: Mapping[str, Sequence[str]], seeds: Sequence[str]
) -> list[SeedRun]:
    """Reads the runs that are still there."""
    runs = []
    for variant in variants:
        for number, (place, seed) in enumerate(zip(folders.get(variant.name) or [], seeds, strict=False)):
            rows = read_lines(folder / place / "receipts.jsonl")
            if rows:
                runs.append(
                    SeedRun(
                        variant=variant,
                        number=number,
                        seed=seed,
                        folder=folder / place,
                        link=f"{place}/report.html",
                        receipts=newest([Receipt.from_dict(row) for row in rows]),
                        metrics=read_lines(folder / place / "metrics.jsonl"),
                    )
                )
    return runs


# Settings


def setting_rows(runs: Sequence[SeedRun], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Gives each setting that is not the same everywhere, as it was resolved for the first seed."""
    given: dict[int, dict[str, dict[str, str]]] = {}
    for run in runs:
        if run.variant.number not in given:
            given[run.variant.number] = {receipt.label: _flat(receipt.settings) for receipt in run.own}
    labels = list(dict.fromkeys(label for stages in given.values() for label in stages))
    rows = []
    for label in labels:
        names = list(dict.fromkeys(name for stages in given.values() for name in stages.get(label, {})))
        lacking = [number for number, stages in given.items() if label not in stages]
        if lacking:
            cells = ["left out" if number in lacking else "there" for number in given]
            rows.append({"name": label, "cells": _placed(given, cells, variants)})
        for name in names:
            having = [stages[label] for stages in given.values() if label in stages]
            if len({settings.get(name, "–") for settings in having}) > 1:
                cells = [stages.get(label, {}).get(name, "–") for stages in given.values()]
                rows.append({"name": f"{label}.{name}", "cells": _placed(given, cells, variants)})
    return rows


def _placed(given: Mapping[int, Any], cells: Sequence[str], variants: Sequence[Variant]) -> list[str]:
    by_number = dict(zip(given, cells, strict=True))
    return [by_number.get(variant.number, "–") for variant in variants]


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Writes nested settings as dotted names, values as a recipe would hold them."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = "–" if value is None else as_recipe(value)
    return found


def made_rows(runs: Sequence[SeedRun], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Gives what came of each variant: weights, steps, tokens, times through the text; means of the seeds."""
    wanted = (
        ("weights", lambda facts: facts.get("parameters")),
        ("steps taken", lambda facts: _training(facts, "steps")),
        ("tokens seen", lambda facts: _training(facts, "tokens")),
        ("times through the text", lambda facts: _training(facts, "epochs")),
    )
    rows = []
    for name, read in wanted:
        cells = []
        for variant in variants:
            last = [_last(run) for run in runs if run.variant is variant]
            values = [value for facts in last if isinstance(value := read(facts), int | float)]
            cells.append(_count(sum(values) / len(values)) if values else "–")
        if any(cell != "–" for cell in cells):
            rows.append({"name": name, "cells": cells})
    return rows


def _last(run: SeedRun) -> dict[str, Any]:
    """Gives the facts of the last weights a run made."""
    made = [receipt.facts for receipt in run.own if receipt.kind in ("model", "adapter") and receipt.facts]
    return made[-1] if made else {}


def _training(facts: Mapping[str, Any], name: str) -> Any:
    return (facts.get("training") or {}).get(name)


def _count(value: float) -> str:
    return format_count(value) if value >= 1000 or value == int(value) else f"{value:.3g}"


# Sharing


def shared_rows(runs: Sequence[SeedRun]) -> tuple[list[dict[str, Any]], float | None]:
    """Gives how many artifacts each stage made for how many runs, and the seconds that sharing saved."""
    labels = list(dict.fromkeys(receipt.label for run in runs for receipt in run.own))
    rows, saved = [], 0.0
    for label in labels:
        by_key: dict[str, list[tuple[SeedRun, Receipt]]] = {}
        for run in runs:
            for receipt in run.own:
                if receipt.label == label and receipt.key:
                    by_key.setdefault(receipt.key, []).append((run, receipt))
        users = sum(len(pairs) for pairs in by_key.values())
        costs = [max(_first_seconds(receipt) for _, receipt in pairs) for pairs in by_key.values()]
        less = sum(cost * (len(pairs) - 1) for cost, pairs in zip(costs, by_key.values(), strict=True))
        saved += less
        rows.append(
            {
                "label": label,
                "made": f"{len(by_key)} for {users} runs",
                "how": _how(by_key, users),
                "cost": format_seconds(sum(costs) / len(costs)) if costs else "–",
                "saved": format_seconds(less) if less else "–",
            }
        )
    return rows, saved or None


def _first_seconds(receipt: Receipt) -> float:
    cost = receipt.first_cost or receipt.cost
    return (cost.seconds if cost else None) or 0.0


def _how(by_key: Mapping[str, Sequence[tuple[SeedRun, Receipt]]], users: int) -> str:
    if len(by_key) == 1 and users > 1:
        return "one for all"
    if len(by_key) == users:
        return "each run its own"
    groups = {
        tuple(sorted({run.variant.letter for run, _ in pairs})): max(len(pairs), 1)
        for pairs in by_key.values()
        if len(pairs) > 1
    }
    return "shared by " + "; ".join(", ".join(letters) for letters in groups)


# Curves


def curves(runs: Sequence[SeedRun]) -> dict[str, Any] | None:
    """Draws the loss of every variant over time: the first seed strong, the others faint."""
    drawn: list[tuple[SeedRun, list[dict[str, Any]], float | None]] = []
    label = None
    for run in runs:
        stages = stage_rows(run.metrics, run.receipts)
        if not stages:
            continue
        label = label if label in stages else list(stages)[-1]
        drawn.append((run, stages[label], bytes_per_token(run.receipts)))
    if not drawn:
        return None
    timed = all(is_timed(rows) for _, rows, _ in drawn)
    dense = all(density for _, _, density in drawn)
    x_name, x = axis_of(timed)
    unit = "bits per byte" if dense else "nats per token"
    series: list[Series] = []
    heldout: list[Series] = []
    first: set[int] = set()
    for run, rows, density in drawn:
        factor = 1 / math.log(2) / density if dense and density else 1.0
        raw = points_of(rows, x_name, "loss", factor)
        looked = points_of(rows, x_name, "heldout_bits_per_byte")
        name, colour = f"{run.variant.letter} {run.variant.name}", run.variant.colour
        faint = run.variant.number in first
        first.add(run.variant.number)
        points = smooth(raw, reach=max(1, len(raw) // 40))
        series.append(Series(name=name, points=points, colour=colour, faint=faint))
        if looked and not faint:
            heldout.append(Series(name=name, points=looked, colour=colour, dots=True))
    lines = [view_of(line.points, []) for line in series if line.points]
    if not lines:
        return None
    y = Axis(
        name=unit,
        write=lambda value: f"{value:.4g}",
        low=min(low for low, _ in lines),
        high=max(high for _, high in lines),
    )
    plots: list[Markup] = [line_plot(series, x, y, title=f"Training loss, {unit}")]
    if len([line for line in heldout if len(line.points) > 1]) > 1:
        spans = [view_of(line.points, []) for line in heldout]
        low, high = min(low for low, _ in spans), max(high for _, high in spans)
        y = Axis(name="bits per byte", write=lambda value: f"{value:.4g}", low=low, high=high)
        plots.append(line_plot(heldout, x, y, title="Held-out, bits per byte"))
    many = len({run.number for run, _, _ in drawn}) > 1
    over = (
        "seconds of training" if timed else "steps: some runs took over what was made before, without times"
    )
    note = f"Over {over}. Averaged over neighbouring steps"
    note += f"; strong: seed {drawn[0][0].seed}, faint: the others." if many else "."
    return {"label": label, "plots": plots, "note": note}
