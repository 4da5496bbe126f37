"""The page of a comparison: what each variant bought, what it cost, and which to choose when what counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from kogata.core.amounts import counted, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine, total_cost
from kogata.core.statistics import mean_interval, paired
from kogata.report import choosing, sections
from kogata.report.choosing import Axis, Quality, Variant
from kogata.report.page import read_json, read_text, render, write_page
from kogata.report.plots import gap_bar
from kogata.report.variants import SeedRun, curves, made_rows, read_runs, setting_rows, shared_rows
from kogata.runtime.compare import MEASURES, NAME, judged_by


def is_one(folder: Path) -> bool:
    """Says whether a folder holds a comparison and no run of its own."""
    return (folder / NAME).is_file() and not (folder / "receipts.jsonl").exists()


def write_comparison(folder: Path) -> Path:
    """Writes `report.html` into a comparison's folder and returns its path."""
    return write_page(Path(folder), make_comparison(Path(folder)))


def make_comparison(folder: Path) -> str:
    """Gives the page of a comparison's folder as text; runs that are gone leave their sections out.

    Raises:
        RecipeError: the folder's comparison.json is missing or damaged.
    """
    found = read_json(folder / NAME)
    variants = variants_of(found)
    if not variants:
        raise RecipeError(
            "no comparison that can be read",
            where=str(folder / NAME),
            expected="what `kogata compare` writes",
            remedy="run the comparison again; what was made is reused",
        )
    seeds = [str(seed) for seed in found.get("seeds") or []]
    quality = Quality.of(found.get("judged_by") or judged_by(variants[0].values))
    match = str(found.get("match") or "")
    axes = choosing.axes_of(variants, found.get("energy_source"))
    runs = read_runs(folder, variants, found.get("folders") or {}, seeds)
    baseline = [run for run in runs if run.variant is variants[0]]
    machine = Machine.from_dict(found.get("machine") or {})
    made = str(found.get("made") or "").replace("T", " ")[:16]
    subtitle = [f"{counted(len(variants), 'variant')}, {counted(len(seeds), 'paired seed')}, equal {match}"]
    subtitle += [f"{counted(machine.cores, 'core')}, {machine.model or machine.device}"]
    subtitle += [f"{made} UTC"] if made else []
    sharing, saved = shared_rows(runs)
    receipts = [receipt for run in runs for receipt in run.receipts]
    return render(
        "comparison.html",
        made_from="this folder's comparison.json and the ledgers of its runs",
        title=f"{found.get('name') or folder.name}: compared",
        subtitle=" · ".join(subtitle),
        status="",
        tiles=_tiles(variants, seeds, quality, match, runs, saved),
        results=[_result(variant, variants, quality, axes, _span(variants, quality)) for variant in variants],
        axes=axes,
        quality=quality,
        judged=_judged(quality, seeds),
        advice=choosing.advice(variants, quality, axes, match),
        caution=choosing.caution(variants, seeds, axes),
        plots=[plot for axis in axes if (plot := choosing.balance_plot(variants, quality, axis))],
        curves=curves(runs),
        seeds=seeds,
        seed_tables=_seed_tables(variants, seeds, runs),
        settings=setting_rows(runs, variants),
        made=made_rows(runs, variants),
        sharing=sharing,
        saved_text=format_seconds(saved) if saved else "",
        variants=variants,
        recipe=sections.coloured_yaml(read_text(baseline[0].folder / "recipe.yaml")) if baseline else "",
        machine=sections.machine_rows(machine, receipts) if found.get("machine") else [],
    )


def variants_of(found: Mapping[str, Any]) -> list[Variant]:
    """Reads the variants with each seed's values; the recipe as it stands comes first."""
    variants = []
    for number, row in enumerate(found.get("rows") or []):
        measures = row.get("measures") or {}
        values = {
            name: [float(value) for value in entry.get("values") or []]
            for name, entry in measures.items()
            if name in MEASURES and entry.get("values")
        }
        variants.append(Variant(number=number, name=str(row.get("variant") or ""), values=values))
    return variants


def _tiles(
    variants: Sequence[Variant],
    seeds: Sequence[str],
    quality: Quality | None,
    match: str,
    runs: Sequence[SeedRun],
    saved: float | None,
) -> list[dict[str, Any]]:
    tiles: list[dict[str, Any]] = []

    def tile(name: str, value: str, *lines: str) -> None:
        tiles.append({"name": name, "value": value, "lines": [line for line in lines if line], "part": None})

    base = variants[0]
    best = choosing.best_of(variants, quality)
    if quality and best:
        tile(f"Best {quality.name}", quality.write(best.mean(quality.measure)), f"{best.letter}: {best.name}")
        if best is not base and quality.measure in base.values:
            gap = paired(best.values[quality.measure], base.values[quality.measure])
            verdict = gap.verdict(lower_is_better=quality.lower)
            tile("Against the recipe as it stands", quality.gap(gap.mean), quality.interval(gap), verdict)
        elif best is base:
            tile(
                "Against the recipe as it stands", "none better", "the recipe as it stands is the best found"
            )
    number = len(variants) * len(seeds)
    tile(
        "Runs", str(number), f"{len(variants)} variants with {counted(len(seeds), 'seed')}", f"equal {match}"
    )
    spent = total_cost([receipt for run in runs for receipt in run.receipts], first=True).seconds
    if spent is not None:
        note = f"{format_seconds(saved)} of it saved: made once, used again" if saved else ""
        tile("Cost of all runs", format_seconds(spent), "each as if it stood alone", note)
    return tiles


def _judged(quality: Quality | None, seeds: Sequence[str]) -> str:
    if quality is None:
        return "Nothing was scored: the recipe has no evaluate, so only costs are compared."
    side = "Lower" if quality.lower else "Higher"
    if len(seeds) < 2:
        return f"{side} is better. One seed gives no interval, so nothing here is a verdict: --seeds 3."
    return (
        f"{side} is better. A difference is to {choosing.BASE_LETTER}, seed by seed; in brackets its 95 % "
        "interval (Student's t). An interval that holds zero shows no difference, which is not the same as "
        "showing that there is none."
    )


def _span(variants: Sequence[Variant], quality: Quality | None) -> float:
    """Gives the largest difference that the bars must hold, intervals included where they are not huge."""
    if quality is None or quality.measure not in variants[0].values:
        return 0.0
    gaps = [gap for variant in variants[1:] if (gap := variant.against(variants[0], quality.measure))]
    ends = [abs(end) for gap in gaps for end in (gap.low, gap.high) if end is not None]
    means = max((abs(gap.mean) for gap in gaps), default=0.0)
    return max(means, min(max(ends, default=0.0), 4 * means)) * 1.05


def _result(
    variant: Variant, variants: Sequence[Variant], quality: Quality | None, axes: Sequence[Axis], span: float
) -> dict[str, Any]:
    """Gives a variant's row: score, difference with interval, verdict, and costs against the first's."""
    base = variants[0]
    row: dict[str, Any] = {"variant": variant, "score": "–", "difference": "", "verdict": "", "bar": ""}
    if quality and quality.measure in variant.values:
        row["score"] = quality.spread(variant.values[quality.measure])
        gap = variant.against(base, quality.measure) if variant is not base else None
        if gap:
            verdict = gap.verdict(lower_is_better=quality.lower)
            style = {"better": "c", "worse": "b"}.get(verdict, "dim")
            row |= {"difference": quality.gap(gap.mean), "interval": quality.interval(gap)}
            row |= {"verdict": verdict, "style": verdict.split()[0]}
            row["bar"] = gap_bar(gap.mean, gap.low, gap.high, span, style=style)
    row["costs"] = [_cost(variant, base, axis) for axis in axes]
    return row


def _cost(variant: Variant, base: Variant, axis: Axis) -> dict[str, str]:
    if axis.measure not in variant.values:
        return {"value": "–", "change": ""}
    mean, change = variant.mean(axis.measure), ""
    if variant is not base and base.values.get(axis.measure):
        change = choosing.part_text(mean / base.mean(axis.measure) - 1) if base.mean(axis.measure) else ""
        change = "the same" if change in ("+0.0 %", "−0.0 %") else change
    return {"value": axis.write(mean), "change": change}


def _seed_tables(
    variants: Sequence[Variant], seeds: Sequence[str], runs: Sequence[SeedRun]
) -> list[dict[str, Any]]:
    """Gives every value of every seed, one table a measure; the first one leads to the runs' pages."""
    links = {(run.variant.number, run.number): run.link for run in runs}
    tables = []
    for measure, (name, lower) in MEASURES.items():
        having = [variant for variant in variants if measure in variant.values]
        if not having:
            continue
        write = choosing.writer_of(measure)
        rows = []
        for variant in having:
            values = variant.values[measure]
            cells = [Markup("{}").format(write(value)) for value in values]
            if not tables:
                cells = [_linked(cell, links.get((variant.number, n))) for n, cell in enumerate(cells)]
            mean, half = mean_interval(values)
            spread = write(mean) + (f" ± {write(half)}" if half is not None else "")
            rows.append({"variant": variant, "cells": cells, "mean": spread})
        tables.append({"name": name, "rows": rows, "cost": lower is None})
    return tables


def _linked(text: Markup, link: str | None) -> Markup:
    return Markup('<a href="{}">{}</a>').format(quote(link), text) if link else text
