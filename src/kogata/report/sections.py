"""The sections of a run's page, as plain rows. Text from data stays text: the template escapes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kogata.core.amounts import Budget, Cost, counted, format_bytes, format_count, format_seconds
from kogata.core.receipt import Machine, Receipt, total_cost
from kogata.report import classifier, tagger
from kogata.report.cards import as_recipe
from kogata.report.facts import joules_text, reason_text
from kogata.report.plots import bar

_JAPANESE = re.compile(r"[\u3040-\u30ff]")
_YAML = re.compile(r"^(\s*(?:- )?)([\w.]+)(:)(.*)$")


def language(text: str) -> str | None:
    """Says `ja` for Japanese text, so that the browser picks Japanese glyphs."""
    return "ja" if _JAPANESE.search(text) else None


# The figures on top


def tiles(receipts: Sequence[Receipt], found: Mapping[str, Any], budget: Budget) -> list[dict[str, Any]]:
    """Gives the figures on top: quality, time, memory, energy, size."""
    spent = total_cost(list(receipts))
    first = total_cost(list(receipts), first=True)
    rows: list[dict[str, Any]] = []

    def tile(
        name: str, value: str, lines: list[str], used: float | None = None, limit: float | None = None
    ) -> None:
        part = used / limit if used is not None and limit else None
        rows.append({"name": name, "value": value, "lines": lines, "part": part})

    score = found["bits_per_byte_facts"]
    if score:
        tile(
            "Held-out text",
            f"{score['value']:.3f}",
            [f"bits per byte, windows of {score.get('window', '?')} tokens"],
        )
    judged = found["labels"] or classifier.kept_score(found)
    if judged:
        tile("Rows right", f"{judged['accuracy']:.1%}", [classifier.best_line(found) or ""])
    marked = found["tags"] or tagger.kept_score(found)
    if marked:
        tile("F1 of spans", f"{marked['f1']:.1%}", [tagger.best_line(found) or ""])
    if found["answers"]:
        before = found["answers"].get("base_loss_nats_per_token")
        line = ["nats a token", *([f"{before:.3f} before training"] if before is not None else [])]
        tile("Held-out answers", f"{found['answers']['loss_nats_per_token']:.3f}", line)
    limit = [f"budget {format_seconds(budget.time)}, start and report included"] if budget.time else []
    if (first.seconds or 0) > (spent.seconds or 0) + 0.01:
        limit.append(f"{format_seconds(first.seconds)} with what was reused")
    tile("Time in stages", format_seconds(spent.seconds), limit, spent.seconds, budget.time)
    limit = [f"budget {format_bytes(budget.memory)}"] if budget.memory else []
    tile("Peak memory", format_bytes(spent.peak_bytes), limit, spent.peak_bytes, budget.memory)
    source = [spent.joules.source.replace(":", ": ", 1)] if spent.joules else ["not measured"]
    high = spent.joules.high if spent.joules else None
    tile("Energy", joules_text(spent), source, high, budget.energy)
    if found["parameters"]:
        files = {name: facts.get("bytes") for name, facts in found["files"].items() if facts.get("bytes")}
        smallest = min(files, key=lambda name: files[name], default=None)
        line = [_shape(found["spec"])] if found["spec"] else []
        line += [f"{format_bytes(files[smallest])} as {smallest}"] if smallest else []
        largest = max(files.values(), default=None)
        tile("Parameters", format_count(found["parameters"]), line, largest, budget.size)
    return rows


def _shape(spec: Mapping[str, Any]) -> str:
    """Says a model's shape: family, layers, width, context."""
    parts = [str(spec.get("architecture") or spec.get("family") or "model")]
    if spec.get("layers") and spec.get("width"):
        parts.append(f"{spec['layers']} layers of width {spec['width']}")
    if spec.get("context"):
        parts.append(f"context {spec['context']}")
    return ", ".join(parts)


# Quality


def quality_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the quality table: bits per byte, then grammar pairs with their error and kinds."""
    rows: list[dict[str, Any]] = [*classifier.rows(found), *tagger.rows(found)]
    answers = found["answers"]
    if answers:
        rows.append({"name": "held-out answers", "value": f"{answers['loss_nats_per_token']:.4f}"})
        before = answers.get("base_loss_nats_per_token")
        if before is not None:
            rows.append({"name": "before training", "value": f"{before:.4f}", "minor": True})
        copies = answers.get("copies")
        if copies and copies["answers"]:
            value = f"{copies['copied']} of {copies['answers']}, {copies['expected_copied']} expected"
            rows.append({"name": "answers copied from training", "value": value})
    general = found["general"]
    if general:
        name = f"general text ({general['language']}), bits per byte"
        rows.append({"name": name, "value": f"{general['bits_per_byte']:.4f}"})
        before = f"{general['bits_per_byte_before']:.4f}"
        rows.append({"name": "before training", "value": before, "minor": True})
    score = found["bits_per_byte_facts"]
    if score:
        rows.append({"name": "bits per byte", "value": f"{score['value']:.4f}"})
        nats = score.get("loss_nats_per_token")
        if nats is not None:
            rows.append({"name": "nats per token", "value": f"{nats:.4f}", "minor": True})
    pairs = found["minimal_pairs"]
    if pairs and pairs.get("accuracy") is not None:
        error = pairs.get("standard_error")
        value = f"{pairs['accuracy']:.1%}" + (f" ± {error:.1%}" if error is not None else "")
        rows.append(
            {"name": "grammar pairs", "value": value, "bar": bar(pairs["accuracy"], 1.0, mark=0.5, style="c")}
        )
        for name, part in (pairs.get("by_paradigm") or {}).items():
            share = part.get("accuracy") if isinstance(part, dict) else part
            if isinstance(share, int | float):
                row = {"name": str(name).replace("_", " "), "value": f"{share:.0%}", "minor": True}
                rows.append(row | {"bar": bar(share, 1.0, mark=0.5, style="c")})
    return rows


def quality_notes(found: Mapping[str, Any]) -> list[str]:
    """Says what the scores were measured on."""
    notes = [*classifier.notes(found), *tagger.notes(found)]
    answers = found["answers"]
    if answers:
        rows = f" of {counted(answers['rows'], 'row')}" if answers.get("rows") else ""
        notes.append(f"Nats a token of the answers{rows} that were not trained on; lower is better.")
    score = found["bits_per_byte_facts"]
    if score and score.get("bytes"):
        count = score.get("documents")
        documents = f"{count:,} held-out document{'s' if count != 1 else ''}, " if count else ""
        notes.append(f"Lower bits per byte is better. Measured on {documents}{format_bytes(score['bytes'])}.")
    pairs = found["minimal_pairs"]
    if pairs and pairs.get("n"):
        notes.append(f"{pairs['n']:,} grammar pairs; the mark is chance (half).")
    return notes


def file_rows(files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Gives the exported files: size, score in their own runtime, difference to the first."""
    rows = []
    base: float | None = None
    for name, facts in files.items():
        score = facts.get("bits_per_byte")
        change = f"{score - base:+.4f}" if score is not None and base is not None else ""
        base = score if base is None else base
        scored = facts.get("scored_bytes")
        runtime = str(facts.get("runtime") or "not scored")
        rows.append(
            {
                "name": "model" if name == "hf" else name,
                "runtime": f"{runtime}, on {format_bytes(scored)}" if scored else runtime,
                "size": format_bytes(facts.get("bytes")),
                "score": "–" if score is None else f"{score:.4f}",
                "change": change,
            }
        )
    return rows


def file_note(found: Mapping[str, Any]) -> str | None:
    """Says when the files were scored on less text than the model."""
    whole = (found["bits_per_byte_facts"] or {}).get("bytes") or 0
    sizes = [facts.get("scored_bytes") or 0 for facts in found["files"].values()]
    if not sizes or not whole or max(sizes) >= whole:
        return None
    return "Scored on less text than the score above: compare the files with each other."


def sample_rows(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gives the sample texts; of answers also what was expected, and what the base said before training."""
    names = ("prompt", "text", "before", "expected")
    rows: list[dict[str, Any]] = [{name: str(row.get(name, "")) for name in names} for row in samples]
    for row in rows:
        if row["prompt"] and row["text"].startswith(row["prompt"]):
            row["text"] = row["text"][len(row["prompt"]) :]
        row["sides"] = []
        if row["expected"] or row["before"]:
            names = (("before training", "before"), ("now", "text"), ("expected", "expected"))
            row["sides"] = [(name, row[key].strip()) for name, key in names if key == "text" or row[key]]
        row["lang"] = language(row["prompt"] + row["text"]) or ""
    return rows


# Cost


def cost_rows(
    receipts: Sequence[Receipt], forecasts: Mapping[str, Cost], plan: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """Gives each stage's cost beside its forecast, the total, and notes."""
    own = [receipt for receipt in receipts if receipt.parent is None]
    pairs = []
    for receipt in own:
        again = receipt.status == "reused"
        cost = (receipt.first_cost if again else receipt.cost) or Cost()
        pairs.append((receipt, cost, forecasts.get(receipt.label) or receipt.forecast or Cost()))
    done = {receipt.label for receipt in own}
    most_time = max((c.seconds or 0 for _, a, b in pairs for c in (a, b)), default=0) or 1
    most_memory = max((c.peak_bytes or 0 for _, a, b in pairs for c in (a, b)), default=0) or 1
    rows = []
    for receipt, cost, forecast in pairs:
        style = "again" if receipt.status == "reused" else "a"
        whole = receipt.status in ("done", "fused")
        rows.append(
            {
                "label": receipt.label,
                "status": receipt.status,
                "time": format_seconds(cost.seconds),
                "time_forecast": format_seconds(forecast.seconds),
                "time_bar": bar(cost.seconds or 0, most_time, mark=forecast.seconds, style=style),
                "time_off": whole and _off(cost.seconds, forecast.seconds, 0.2, 1.0),
                "memory": format_bytes(cost.peak_bytes),
                "memory_forecast": format_bytes(forecast.peak_bytes),
                "memory_bar": bar(
                    cost.peak_bytes or 0, most_memory, mark=forecast.peak_bytes, style=f"{style} c"
                ),
                "memory_off": whole and _off(cost.peak_bytes, forecast.peak_bytes, 0.15, 32 * 2**20),
                "energy": joules_text(cost),
            }
        )
    empty = bar(0, 1)
    for label, forecast in forecasts.items():
        if label not in done:
            blank = {
                "label": label,
                "status": "not run",
                "time_bar": empty,
                "memory_bar": empty,
                "time_off": False,
            }
            blank |= {"time": "–", "memory": "–", "energy": "–", "memory_off": False}
            blank |= {"time_forecast": format_seconds(forecast.seconds)}
            rows.append(blank | {"memory_forecast": format_bytes(forecast.peak_bytes)})
    spent, planned = total_cost(list(receipts)), Cost()
    for forecast in forecasts.values():
        planned = planned + forecast
    total = {
        "time": format_seconds(spent.seconds),
        "time_forecast": format_seconds(planned.seconds),
        "memory": format_bytes(spent.peak_bytes),
        "memory_forecast": format_bytes(planned.peak_bytes),
        "energy": joules_text(spent),
    }
    notes = []
    if any(receipt.status == "reused" for receipt in own):
        notes.append(
            "Hatched: reused. It shows what making it cost the first time; the sum counts it as nothing."
        )
    if any(receipt.status == "fused" for receipt in own):
        notes.append(
            "Fused stages ran in one pass with the stage after them; their peak memory is that of the pass."
        )
    if any(row["time_off"] or row["memory_off"] for row in rows):
        notes.append(
            "A forecast in another colour missed: time by more than 20 % and 1 s, memory by more than 15 %."
        )
    return rows, total, notes


def _off(real: float | None, forecast: float | None, share: float, least: float) -> bool:
    if real is None or forecast is None:
        return False
    return abs(real - forecast) > max(share * forecast, least)


# The rest


def choice_rows(receipts: Sequence[Receipt]) -> list[dict[str, str]]:
    """Gives every `auto` with what it became and why."""
    rows = []
    for receipt in receipts:
        for name, reason in receipt.reasons.items():
            value: Any = receipt.settings
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            shown = "" if value is None else as_recipe(value)
            rows.append(
                {"name": f"{receipt.label}.{name}", "value": shown, "reason": reason_text(shown, reason)}
            )
    return rows


def machine_rows(machine: Machine, receipts: Sequence[Receipt]) -> list[tuple[str, str]]:
    """Gives what the machine is, as measured, and the versions that were used."""
    rate = format_count
    watts = (
        f"{machine.watts[0]:.3g}–{machine.watts[1]:.3g} W, {machine.watts_source}" if machine.watts else "–"
    )
    rows = [
        ("processor", machine.model or machine.device),
        ("cores", f"{machine.cores}{f' · {machine.isa}' if machine.isa else ''}"),
        ("memory", format_bytes(machine.memory_bytes or None)),
        ("matrix products", f"{rate(machine.gemm_flops)}FLOP/s" if machine.gemm_flops else "–"),
        ("at small shapes", f"{rate(machine.gemm_small_flops)}FLOP/s" if machine.gemm_small_flops else "–"),
        ("copying", f"{rate(machine.stream_bytes)}B/s" if machine.stream_bytes else "–"),
        ("text, on one core", f"{rate(machine.text_bytes)}B/s" if machine.text_bytes else "–"),
        ("power at load", watts),
        ("C++ compiler", "found" if machine.compiler else "not found"),
    ]
    versions = dict(machine.versions)
    for receipt in receipts:
        versions |= receipt.versions
    if versions:
        rows.append(
            ("versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
        )
    return rows


def receipt_rows(receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Gives the ledger's lines."""
    rows = []
    for receipt in receipts:
        cost = receipt.cost or Cost()
        rows.append(
            {
                "label": receipt.label,
                "status": receipt.status,
                "child": receipt.parent is not None,
                "wall": format_seconds(cost.seconds),
                "cpu": format_seconds(cost.cpu_seconds),
                "peak": format_bytes(cost.peak_bytes),
                "tokens": format_count(cost.tokens),
                "flops": format_count(cost.flops),
                "key": receipt.key[:10],
                "made": (receipt.made or "–")[:10],
                "started": (receipt.started or "–").replace("T", " ")[:19],
            }
        )
    return rows


def how_to_use(place: str, found: Mapping[str, Any]) -> str:
    """Gives the commands that use what the run made."""
    files = found["files"]
    if found["tagger"]:
        return tagger.how_to_use(place, files, found["tagger"])
    if found["role"] in ("classifier", "encoder"):
        return classifier.how_to_use(place, files, found["classifier"])
    lines = [f'kogata generate {place} "…"']
    if "hf" in files:
        lines += ["", "# Python, without Kogata", "from transformers import pipeline"]
        lines += [f'write = pipeline("text-generation", model="{place}/model")']
    gguf = [name for name in files if name.endswith(".gguf")]
    if gguf:
        lines += ["", "# llama.cpp", f'llama-completion -m {place}/{gguf[-1]} -p "…"']
    return "\n".join(lines)


def coloured_yaml(text: str) -> Markup:
    """Colours a recipe's keys and comments; everything is escaped."""
    shown = []
    for line in text.rstrip().splitlines():
        if line.lstrip().startswith("#"):
            shown.append(Markup('<span class="h">{}</span>').format(line))
            continue
        parts = _YAML.match(line)
        if parts is None:
            shown.append(Markup("{}").format(line))
            continue
        value, sign, comment = parts[4].partition(" #")
        tail = Markup('<span class="h"> #{}</span>').format(comment) if sign else Markup("")
        shown.append(
            Markup('{}<span class="k">{}</span>{}{}{}').format(parts[1], parts[2], parts[3], value, tail)
        )
    return Markup("\n").join(shown)
