"""The page of a run: one HTML file, made from the run folder's ledger alone, that loads nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kogata import __version__
from kogata.core.amounts import Budget, Cost, counted
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine, Receipt
from kogata.report import sections
from kogata.report.facts import highlights
from kogata.report.funnel import funnel_rows
from kogata.report.training import training_parts

HERE = Path(__file__).resolve().parent
NAME = "report.html"
GOOD = ("done", "reused", "fused")


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run's folder and returns its path.

    Raises:
        RecipeError: the folder holds no ledger.
    """
    return write_page(Path(folder), make_page(Path(folder)))


def write_page(folder: Path, page: str) -> Path:
    """Writes a page's text to `report.html` of a folder, whole or not at all."""
    target = folder / NAME
    beside = target.with_name(f".{NAME}.{os.getpid()}")
    beside.write_text(page, encoding="utf-8", errors="replace")
    os.replace(beside, target)
    return target


def make_page(folder: Path) -> str:
    """Gives the page of a run's folder as text."""
    if not (folder / "receipts.jsonl").exists() and not (folder / "plan.json").exists():
        raise RecipeError(
            "not a run's folder",
            where=str(folder),
            expected="a folder with receipts.jsonl and plan.json",
            remedy="name the folder a run left, for example runs/novels",
        )
    plan = read_json(folder / "plan.json")
    receipts = newest([Receipt.from_dict(row) for row in read_lines(folder / "receipts.jsonl")])
    metrics = read_lines(folder / "metrics.jsonl")
    asked = plan.get("recipe") or {}
    budget = _budget(asked.get("budget") or {})
    machine = Machine.from_dict(plan.get("machine") or {})
    forecasts = {
        step["label"]: Cost.from_dict(step.get("forecast") or {}) for step in plan.get("steps") or []
    }
    found = highlights(receipts)
    status, trouble = status_of(receipts, list(forecasts))
    label = os.path.basename(os.path.normpath(folder.resolve()))
    started = next((receipt.started for receipt in receipts if receipt.started), None)
    subtitle = [f"seed {asked['seed']}"] if "seed" in asked else []
    subtitle += (
        [f"{counted(machine.cores, 'core')}, {machine.model or machine.device}"]
        if plan.get("machine")
        else []
    )
    subtitle += [started.replace("T", " ")[:16] + " UTC"] if started else []
    quality = sections.quality_rows(found)
    funnel, funnel_summary = funnel_rows(receipts)
    costs, total, cost_notes = sections.cost_rows(receipts, forecasts, plan)
    return render(
        "page.html",
        made_from="this folder's ledger",
        title=asked.get("name") or label,
        subtitle=" · ".join(subtitle),
        status=status,
        trouble=trouble,
        tiles=sections.tiles(receipts, found, budget),
        training=training_parts(metrics, receipts),
        quality=quality,
        has_bars=any(row.get("bar") for row in quality),
        quality_notes=sections.quality_notes(found),
        files=sections.file_rows(found["files"]),
        files_scored=any(facts.get("bits_per_byte") is not None for facts in found["files"].values()),
        file_note=sections.file_note(found),
        costs=costs,
        total=total,
        cost_notes=cost_notes,
        samples=sections.sample_rows(found["samples"]),
        funnel=funnel,
        funnel_summary=funnel_summary,
        choices=sections.choice_rows(receipts),
        recipe=sections.coloured_yaml(read_text(folder / "recipe.yaml")),
        machine=sections.machine_rows(machine, receipts),
        use=sections.how_to_use(f"runs/{label}", found) if status == "done" else None,
        receipts=sections.receipt_rows(receipts),
    )


def newest(receipts: list[Receipt]) -> list[Receipt]:
    """Keeps the last receipt of each stage, in the order of the last invocation."""
    kept: dict[tuple[str | None, str], Receipt] = {}
    for receipt in receipts:
        place = (receipt.parent, receipt.label)
        kept.pop(place, None)
        kept[place] = receipt
    return list(kept.values())


def status_of(receipts: list[Receipt], planned: list[str]) -> tuple[str, Receipt | None]:
    """Says how the run stands, and which receipt tells of trouble."""
    own = [receipt for receipt in receipts if receipt.parent is None]
    for receipt in reversed(own):
        if receipt.status not in GOOD:
            return receipt.status, receipt
    missing = set(planned) - {receipt.label for receipt in own}
    return ("unfinished", None) if missing or not own else ("done", None)


def render(name: str, **parts: Any) -> str:
    """Fills a page's template in."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    css, js = _source("page.css"), _source("page.js")
    return environment.get_template(name).render(release=__version__, css=css, js=js, **parts)


def _source(name: str) -> Markup:
    """Reads a file of ours, which needs no escaping."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def read_text(path: Path) -> str:
    """Reads a file that may be missing or damaged."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object; a missing or damaged file holds none."""
    try:
        found = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads whole lines; one that a kill cut off is passed over."""
    found = []
    for line in read_text(path).splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _budget(parts: Mapping[str, Any]) -> Budget:
    try:
        return Budget.model_validate(dict(parts))
    except ValueError:
        return Budget()
