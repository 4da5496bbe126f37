"""The screen of `kogata check`: what was read, how it is spread, what is trained, what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kogata.core.amounts import counted, format_bytes

if TYPE_CHECKING:
    from kogata.engine.check._common import Finding
    from kogata.engine.checking import Checked

MARKS = {"problem": ("✗", "bold red"), "warning": ("!", "yellow"), "note": ("•", "dim")}
LABELS_SHOWN = 12
ROWS_SHOWN = 3
BAR = 28
"""Characters of the longest bar."""
SHOWN_APART = ("lengths", "mask")
"""Notes that have a picture of their own."""


def view(found: Checked) -> RenderableType:
    """Shows what was read and every finding, problems first, and a verdict."""
    parts: list[RenderableType] = [*_read(found), *_labels(found), *_lengths(found), *_mask(found)]
    told = [f for f in found.findings if not (f.level == "note" and f.name in SHOWN_APART)]
    if told:
        parts += [Text(), *(part for finding in told for part in _finding(finding))]
    counts = {level: sum(f.level == level for f in found.findings) for level in MARKS}
    if counts["problem"]:
        said = f"{counted(counts['problem'], 'problem')}, {counted(counts['warning'], 'warning')}"
        verdict = Text(said, "bold red")
    elif counts["warning"]:
        verdict = Text(f"no problem, {counted(counts['warning'], 'warning')}", "yellow")
    else:
        verdict = Text("✓ nothing wrong found", "green")
    return Group(*parts, Text(), verdict)


def _read(found: Checked) -> Iterator[RenderableType]:
    lost = f", {found.unusable:,} cannot be used" if found.unusable else ", all can be used"
    yield Text.assemble((found.where, "bold"), f"   {counted(found.rows, 'row')}{lost}")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    said: dict[str, list[str]] = {}
    for file, taken in found.columns.items():
        roles = ", ".join(f"{role} ← {header}" for role, header in taken["roles"].items())
        unused = f"   not used: {', '.join(taken['unused'])}" if taken["unused"] else ""
        said.setdefault(f"{taken['form']}: {roles}{unused}", []).append(file)
    for line, files in said.items():
        where = files[0] if len(files) == 1 else f"{len(files)} files"
        table.add_row("columns", line + (f"   ({where})" if len(said) > 1 or len(files) > 1 else ""))
    for split, counts in found.facts["splits"].items():
        size = f"{counted(counts['examples'], 'row')}, {format_bytes(counts['bytes'])} of text"
        table.add_row(f"split {split}", size)
    language = found.facts.get("language_hint")
    table.add_row("language", "not told" if language in (None, "und") else str(language))
    if found.groups is not None:
        table.add_row("groups", f"{found.groups:,}, whose rows stay in one split")
    if found.model is not None:
        chat = found.model["chat_format"] or "a text encoder: no chat format"
        table.add_row("model", f"{found.model['name']}, up to {found.model['context']:,} tokens; {chat}")
    yield table


def _labels(found: Checked) -> Iterator[RenderableType]:
    if not found.labels:
        return
    what = "spans" if found.facts.get("form") == "tags" else "rows"
    yield Text(f"\n{counted(len(found.labels), 'label')}, {what} in training", "bold")
    some = list(found.labels.items())
    if len(some) > LABELS_SHOWN:
        some = [*some[: LABELS_SHOWN // 2], ("…", 0), *some[-LABELS_SHOWN // 2 :]]
    yield _bars([(label, rows) for label, rows in some])


def _lengths(found: Checked) -> Iterator[RenderableType]:
    finding = found.finding("lengths")
    if finding is None:
        return
    yield Text(f"\n{finding.what}", "bold")
    numbers = finding.numbers
    edges = numbers["edges"]
    rows = [
        (f"{low + (at > 0):,}–{high:,}", count)
        for at, (low, high, count) in enumerate(zip(edges, edges[1:], numbers["counts"], strict=False))
    ]
    if numbers["beyond"]:
        rows.append(("beyond", numbers["beyond"]))
    yield _bars(rows)


def _bars(rows: list[tuple[str, int]]) -> Table:
    most = max((count for _, count in rows), default=1) or 1
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", max_width=40)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for name, count in rows:
        if name == "…":
            table.add_row("…", "", "")
            continue
        bar = "█" * max(int(count > 0), round(BAR * count / most))
        table.add_row(Text(name), f"{count:,}", Text(bar, "cyan"))
    return table


def _mask(found: Checked) -> Iterator[RenderableType]:
    finding = found.finding("mask")
    if finding is None:
        return
    yield Text(f"\n{finding.what}", "bold")
    for row in finding.numbers["view"]:
        text = Text(f"{row['source']}  ", "dim")
        for piece in row["pieces"]:
            # Without colours the brackets say what is trained.
            trained = piece["weight"] > 0
            text.append(f"⟦{piece['text']}⟧" if trained else piece["text"], "green" if trained else "dim")
        yield text


def _finding(finding: Finding) -> Iterator[RenderableType]:
    mark, style = MARKS[finding.level]
    yield Text.assemble((f"{mark} ", style), (finding.what, "" if finding.level == "note" else "bold"))
    for row in finding.rows[:ROWS_SHOWN]:
        yield Text(f"    {_row(row)}", "dim")
    if finding.count > ROWS_SHOWN and finding.rows:
        yield Text("    … (--json lists more)", "dim")
    if finding.remedy:
        yield Text.assemble(("    remedy  ", "dim"), finding.remedy)


def _row(row: dict[str, Any]) -> str:
    parts = [str(row["source"])]
    if row.get("field"):
        parts.append(f"field {row['field']}")
    if row.get("found"):
        parts.append(f"found {row['found']}")
    if row.get("expected"):
        parts.append(f"expected {row['expected']}")
    if row.get("same_as"):
        parts.append(f"like {row['same_as']}")
    if row.get("times"):
        parts.append(f"{row['times']} times")
    return " · ".join(parts)
