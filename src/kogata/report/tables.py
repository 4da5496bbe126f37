"""What the verbs print for people, as things `rich` can show; imported only when something is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kogata.core.amounts import (
    Budget,
    Cost,
    counted,
    format_bytes,
    format_count,
    format_joules,
    format_seconds,
)
from kogata.core.receipt import Receipt, total_cost
from kogata.core.statistics import Difference
from kogata.report import classifier, tagger
from kogata.report.cards import SECTIONS, Card, as_recipe
from kogata.report.facts import highlights, joules_text, reason_text

if TYPE_CHECKING:
    from kogata.core.recipe import Plan
    from kogata.report.choosing import Quality

COLOURS = {
    "done": "green", "reused": "cyan", "fused": "dim", "failed": "bold red", "refused": "bold red",
    "stopped": "yellow",
}  # fmt: skip


def _table(*columns: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if position in right else "left", no_wrap=position in right)
    return table


def budget_text(budget: Budget) -> str:
    """Says a budget in one line: `4min, 4GiB`; `none` when nothing binds."""
    parts = [
        format_seconds(budget.time) if budget.time else None,
        format_bytes(budget.memory) if budget.memory else None,
        f"GPU {format_bytes(budget.gpu_memory)}" if budget.gpu_memory else None,
        format_joules(budget.energy) if budget.energy else None,
        f"file ≤ {format_bytes(budget.size)}" if budget.size else None,
    ]
    return ", ".join(part for part in parts if part) or "none"


# Plan


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Gives a plan as plain values for JSON."""
    from kogata.runtime.folder import plan_rows

    return {
        "name": plan.recipe.name,
        "budget": plan.recipe.budget.model_dump(mode="json", exclude_none=True),
        "seed": plan.recipe.seed,
        "verdict": plan.verdict,
        "refusals": list(plan.refusals),
        "notes": list(plan.notes),
        "total": plan.total.to_dict(),
        "reserve_seconds": plan.reserve_seconds,
        "disk_bytes": plan.disk_bytes,
        "machine": plan.machine.to_dict(),
        "steps": plan_rows(plan),
    }


def plan_view(plan: Plan) -> RenderableType:
    """Shows a plan: a row for each stage, under it each choice with its reason; then total and verdict."""
    machine = plan.machine
    head = Text.assemble(
        (plan.recipe.name, "bold"), f"   budget {budget_text(plan.recipe.budget)} · seed {plan.recipe.seed}"
    )
    rate = f", {format_count(machine.gemm_flops)}FLOP/s in matrix products" if machine.gemm_flops else ""
    where = f"on {counted(machine.cores, 'core')} of {machine.model or machine.device}{rate}"
    table = _table("stage", "makes", "time", "memory", "energy", "size", "disk", right=(2, 3, 4, 5, 6))
    for step in plan.steps:
        cost = step.forecast.cost
        label = Text(step.step.label, style="bold")
        if step.reused:
            table.add_row(label, Text(f"{step.kind}, reused", "cyan"), "0s", "–", "–", "–", "–")
            continue
        kind = f"{step.kind}, in one pass with {step.fused_into}" if step.fused_into else step.kind
        table.add_row(
            label,
            Text(kind, "dim" if step.fused_into else ""),
            format_seconds(cost.seconds),
            format_bytes(cost.peak_bytes),
            joules_text(cost),
            format_bytes(cost.size_bytes),
            format_bytes(step.forecast.disk_bytes) if step.forecast.disk_bytes else "–",
        )
    total = plan.total
    table.add_section()
    table.add_row(
        "total",
        Text("start and report included", "dim"),
        format_seconds(total.seconds),
        format_bytes(total.peak_bytes),
        joules_text(total),
        format_bytes(total.size_bytes),
        format_bytes(plan.disk_bytes),
        style="bold",
    )
    choices = _table("chosen", "value", "because")
    for step in plan.steps:
        for setting, reason in step.reasons.items():
            value = as_recipe(_setting(step.stage, setting))
            choices.add_row(
                f"{step.step.label}.{setting}", Text(value, "cyan"), Text(reason_text(value, reason), "dim")
            )
    lines: list[RenderableType] = [head, Text(where, "dim"), Text(), table, Text()]
    if choices.row_count:
        lines += [choices, Text()]
    if plan.refusals:
        lines += [Text(f"✗ refused: {refusal}", "bold red") for refusal in plan.refusals]
    else:
        lines.append(Text(f"✓ {plan.verdict}", "green"))
    lines += [Text(f"  {note}", "yellow") for note in plan.notes]
    return Group(*lines)


def _setting(stage: Any, name: str) -> Any:
    """Reads a resolved setting by its dotted name, as a recipe would hold it."""
    value: Any = stage.model_dump(mode="json")
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


# Run


def run_dict(run: Any) -> dict[str, Any]:
    """Gives a finished run as plain values for JSON."""
    return {
        "path": str(run.path),
        "status": run.status,
        "report": str(run.path / "report.html"),
        "total": total_cost(run.receipts).to_dict(),
        "highlights": highlights(run.receipts),
        "receipts": [receipt.to_dict() for receipt in run.receipts],
    }


def run_view(run: Any) -> RenderableType:
    """Shows what a run spent, how good it is and where it lies."""
    total = total_cost(run.receipts)
    found = highlights(run.receipts)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    if found["bits_per_byte"] is not None:
        table.add_row(
            "quality", Text(f"{found['bits_per_byte']:.3f} bits per byte on held-out text", "bold green")
        )
    if found["answers"]:
        before = found["answers"].get("base_loss_nats_per_token")
        told = f"{found['answers']['loss_nats_per_token']:.3f} nats a token of held-out answers"
        told += f", {before:.3f} before training" if before is not None else ""
        table.add_row("quality", Text(told, "bold green"))
    if found["general"]:
        now, before = found["general"]["bits_per_byte"], found["general"]["bits_per_byte_before"]
        language = found["general"]["language"]
        table.add_row("", f"{now:.3f} bits per byte of general text ({language}), {before:.3f} before")
    for best in (classifier.best_line(found), tagger.best_line(found)):
        if best:
            table.add_row("quality", Text(best, "bold green"))
    if found["minimal_pairs"]:
        pairs = found["minimal_pairs"]
        table.add_row("", f"{pairs['accuracy']:.1%} ± {pairs['standard_error']:.1%} of grammar pairs")
    if found["parameters"]:
        table.add_row("model", f"{format_count(found['parameters'])} parameters")
    spent = f"{format_seconds(total.seconds)} · {format_bytes(total.peak_bytes)} · {joules_text(total)}"
    table.add_row("spent", spent)
    for name, facts in found["files"].items():
        score = facts.get("bits_per_byte")
        scored = f" · {score:.3f} bits per byte in {facts.get('runtime')}" if score is not None else ""
        table.add_row("file", f"{run.path / _delivered(name)}  {format_bytes(facts.get('bytes'))}{scored}")
    table.add_row("report", str(run.path / "report.html"))
    if found["role"] not in ("classifier", "encoder", "tagger"):
        table.add_row("try it", f'kogata generate {run.path} "…"')
    return table


def _delivered(name: str) -> str:
    return "model" if name == "hf" else name


def receipts_view(receipts: list[Receipt]) -> RenderableType:
    """Shows receipts as a table: forecast beside cost."""
    table = _table("stage", "status", "forecast", "took", "memory", right=(2, 3, 4))
    for receipt in receipts:
        cost, forecast = receipt.cost or Cost(), receipt.forecast or Cost()
        table.add_row(
            receipt.label,
            Text(receipt.status, COLOURS.get(receipt.status, "")),
            format_seconds(forecast.seconds),
            format_seconds(cost.seconds),
            format_bytes(cost.peak_bytes),
        )
    return table


# Compare


def comparison_dict(found: Any) -> dict[str, Any]:
    """Gives a comparison as plain values for JSON, with where it lies."""
    return {**found.to_dict(), "path": str(found.path), "report": str(found.path / "report.html")}


def comparison_view(found: dict[str, Any]) -> RenderableType:
    """Shows a comparison: each variant's quality and cost, the paired difference, the verdict."""
    from kogata.report.choosing import Quality

    seeds = found.get("seeds") or []
    head = Text.assemble(
        (f"{found.get('name', '')}", "bold"), f"   {len(seeds)} paired seeds, equal {found.get('match')}"
    )
    quality = Quality.of(found.get("judged_by"))
    judged = quality.measure if quality else ""
    columns = (quality.name if quality else "score", "difference (95 %)", "verdict", "grammar pairs")
    names = ("variant", *columns, "training", "in all", "memory")
    rows: list[tuple[Text | str, ...]] = []
    for row in found.get("rows", []):
        measures = row.get("measures", {})
        score = measures.get(judged, {})
        verdict = str(score.get("verdict") or "")
        colour = {"better": "bold green", "worse": "bold red"}.get(verdict, "yellow")
        pairs = measures.get("minimal_pairs", {}) if judged != "minimal_pairs" else {}
        cells = (
            Text(str(row.get("variant", "")), "bold"),
            _spread(score, ".1%" if quality and quality.share else ".4f"),
            _interval(score.get("difference"), quality),
            Text(verdict, colour),
            _spread(pairs, ".1%"),
            format_seconds(measures.get("training_seconds", {}).get("mean")),
            format_seconds(measures.get("total_seconds", {}).get("mean")),
            format_bytes(measures.get("peak_bytes", {}).get("mean")),
        )
        rows.append(cells)
    # What no variant was measured by has no column: a narrow terminal needs the room.
    kept = [at for at in range(len(names)) if at < 4 or any(str(cells[at]) != "–" for cells in rows)]
    right = tuple(place for place, at in enumerate(kept) if at not in (0, 3))
    table = _table(*(names[at] for at in kept), right=right)
    for cells in rows:
        table.add_row(*(cells[at] for at in kept))
    page = [Text(), Text(f"report  {found['report']}", "dim")] if found.get("report") else []
    return Group(head, Text(), table, *page)


def _spread(measure: dict[str, Any], form: str) -> str:
    if measure.get("mean") is None:
        return "–"
    half = measure.get("half_width")
    return format(measure["mean"], form) + (f" ± {format(half, form)}" if half is not None else "")


def _interval(gap: dict[str, Any] | None, quality: Quality | None) -> str:
    if not gap or quality is None:
        return ""
    found = Difference(**gap)
    return f"{quality.gap(found.mean)} {quality.interval(found)}".rstrip()


# Stages, store


def stages_view(cards: list[Card]) -> RenderableType:
    """Lists the techniques: name, what each takes and makes, its one sentence."""
    table = _table("technique", "takes → makes", "what it does")
    for card in cards:
        flow = f"{', '.join(card.takes.values()) or 'files'} → {card.makes}"
        table.add_row(Text(card.name, "bold cyan"), Text(flow, "dim"), card.summary)
    return Group(
        table, Text(), Text("kogata stages NAME shows when it pays, when it hurts and every setting", "dim")
    )


def card_view(card: Card) -> RenderableType:
    """Shows a technique's card."""
    parts: list[RenderableType] = [Text(card.name, "bold cyan"), Text(card.summary, "bold")]
    if card.body:
        parts += [Text(), Text(card.body)]
    flow = ", ".join(f"{slot}: {kinds}" for slot, kinds in card.takes.items()) or "files outside the store"
    facts = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    if card.makes:
        facts.add_row("takes", flow)
        facts.add_row("makes", card.makes)
    colours = {"Pays when": "green", "Hurts when": "red"}
    for name in SECTIONS:
        if name in card.sections:
            facts.add_row(Text(name.lower(), colours.get(name, "dim")), card.sections[name])
    parts += [Text(), facts, Text()]
    settings = _table("setting", "takes", "default", "what it is")
    for item in card.settings:
        default = Text("must be given", "yellow") if item.default is None else Text(item.default, "cyan")
        settings.add_row(Text(item.name, "bold"), Text(item.type, "dim"), default, item.description)
    parts.append(settings if card.settings else Text("It has no settings.", "dim"))
    return Padding(Group(*parts), 0)


def store_view(rows: list[dict[str, Any]]) -> RenderableType:
    """Lists what is kept for reuse, newest first."""
    if not rows:
        return Text("the store is empty")
    table = _table("object", "kind", "made by", "size", "first cost", "made", right=(3, 4))
    for row in rows:
        made = str(row.get("made") or "–")[:16].replace("T", " ")
        stage = str(row.get("stage") or "–")
        size, cost = format_bytes(row["bytes"]), format_seconds(row.get("seconds"))
        table.add_row(str(row["object"])[:16], str(row["kind"]), stage, size, cost, made)
    total = sum(row["bytes"] for row in rows)
    return Group(table, Text(), Text(f"{len(rows)} objects, {format_bytes(total)}", "dim"))
