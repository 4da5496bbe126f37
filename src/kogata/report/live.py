"""The live screen of a terminal: the stages, the one at work, loss, speed, time and memory left."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kogata.core.amounts import format_bytes, format_count, format_seconds
from kogata.core.receipt import Receipt
from kogata.report.screen import count_text, done_text, figure_of, format_clock, left_text, spark

GLYPHS = {"done": "✓", "reused": "↺", "fused": "┆", "failed": "✗", "refused": "✗", "stopped": "■"}
STYLES = {
    "done": "green", "reused": "cyan", "fused": "dim", "failed": "bold red", "refused": "bold red",
    "stopped": "yellow",
}  # fmt: skip
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
HISTORY = 4096


@dataclass
class Row:
    """One stage on the screen."""

    label: str
    forecast: float | None = None
    started: float | None = None
    receipt: Receipt | None = None
    done: float = 0.0
    total: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    heldout: float | None = None


class LiveScreen:
    """Draws the run in place, four times a second.

    Args:
        stream: the terminal.
        console: instead of the stream, for tests.
    """

    def __init__(self, stream: IO[str] | None = None, *, console: Console | None = None) -> None:
        self.console = console or Console(
            file=stream, highlight=False, no_color="NO_COLOR" in os.environ or None
        )
        self.begun = time.monotonic()
        self.rows: dict[str, Row] = {}
        self.current: Row | None = None
        self.title = ""
        self.budget_seconds: float | None = None
        self.budget_bytes: int | None = None
        self.peak_bytes = 0
        self.live: Live | None = None

    def event(self, name: str, **facts: Any) -> None:
        """Takes an event and changes what the next drawing shows."""
        handler = getattr(self, f"_on_{name}", None)
        if handler:
            handler(facts)
        if self.live is None and name in ("plan", "stage_start"):
            self.live = Live(
                console=self.console, get_renderable=self.draw, refresh_per_second=4, transient=False
            )
            self.live.start()

    def close(self) -> None:
        """Draws a last time and gives the terminal back."""
        if self.live is not None:
            live, self.live = self.live, None
            live.stop()

    def _on_plan(self, facts: dict[str, Any]) -> None:
        plan = facts["plan"]
        self.title = plan.recipe.name
        self.budget_seconds, self.budget_bytes = plan.recipe.budget.time, plan.recipe.budget.memory
        for step in plan.steps:
            self.rows[step.step.label] = Row(step.step.label, step.forecast.cost.seconds)

    def _row(self, facts: dict[str, Any]) -> Row:
        return self.rows.setdefault(facts["label"], Row(facts["label"]))

    def _on_stage_start(self, facts: dict[str, Any]) -> None:
        row = self._row(facts)
        forecast = facts.get("forecast")
        seconds = getattr(getattr(forecast, "cost", forecast), "seconds", None)
        row.forecast = seconds if seconds is not None else row.forecast
        row.started, row.receipt = time.monotonic(), None
        row.done, row.total = 0.0, None
        row.facts, row.losses = {}, []
        self.current = row

    def _on_progress(self, facts: dict[str, Any]) -> None:
        row = self._row(facts)
        inner = {key: value for key, value in facts.items() if key not in ("label", "done", "total", "facts")}
        inner |= facts.get("facts") or {}
        row.done, row.total = facts.get("done") or 0.0, facts.get("total")
        row.facts |= inner
        if inner.get("loss") is not None:
            row.losses.append(float(inner["loss"]))
            if len(row.losses) > HISTORY:
                # Halved by pairs, so that the line keeps the whole history at a coarser grain.
                row.losses = [(a + b) / 2 for a, b in zip(row.losses[::2], row.losses[1::2], strict=False)]
        if inner.get("heldout_bits_per_byte") is not None:
            row.heldout = inner["heldout_bits_per_byte"]
        self.peak_bytes = max(self.peak_bytes, int(inner.get("memory_bytes") or 0))

    def _on_stage_done(self, facts: dict[str, Any]) -> None:
        row = self._row(facts)
        row.receipt = facts["receipt"]
        if row is self.current:
            self.current = None

    _on_reused = _on_stage_done

    def _on_log(self, facts: dict[str, Any]) -> None:
        self._print(Text.assemble((f"{facts.get('label') or ''}  ", "dim"), str(facts.get("text", ""))))

    def _on_note(self, facts: dict[str, Any]) -> None:
        self._print(Text(str(facts.get("text", "")), "yellow"))

    def _on_done(self, facts: dict[str, Any]) -> None:
        self.close()
        self._print(Text(done_text(facts), STYLES.get(str(facts.get("status", "done")), "bold")))

    def _print(self, text: Text) -> None:
        (self.live.console if self.live else self.console).print(text)

    # Drawing

    def draw(self) -> RenderableType:
        """Gives the screen as it stands now."""
        parts: list[RenderableType] = [self._head()]
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, style="dim")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in self.rows.values():
            table.add_row(*self._cells(row))
        parts.append(table)
        if self.current is not None and self.live is not None:
            parts.append(self._work(self.current))
        return Group(*parts)

    def _head(self) -> Text:
        spent = time.monotonic() - self.begun
        head = Text.assemble((f"小 {self.title}", "bold"), ("  ", ""), (format_clock(spent), "bold"))
        if self.budget_seconds:
            left = self.budget_seconds - spent
            head.append(f" of {format_clock(self.budget_seconds)}", "dim")
            head.append(
                f"  {format_clock(left)} left" if left >= 0 else f"  {format_clock(-left)} over",
                "green" if left >= 0 else "bold red",
            )
        if self.peak_bytes:
            head.append(f"  memory {format_bytes(self.peak_bytes)}", "")
            if self.budget_bytes:
                head.append(f" of {format_bytes(self.budget_bytes)}", "dim")
        return head

    def _cells(self, row: Row) -> tuple[RenderableType, ...]:
        forecast = f"of {format_seconds(row.forecast)}" if row.forecast is not None else ""
        if row.receipt is not None:
            status = row.receipt.status
            seconds = row.receipt.cost.seconds if row.receipt.cost else None
            took = format_seconds(seconds) if status != "reused" else status
            style = STYLES.get(status, "")
            glyph = Text(GLYPHS.get(status, "?"), style)
            return (
                glyph, Text(row.label), Text(took, style if status != "done" else ""),
                forecast if status in ("done", "fused") else "", Text(figure_of(row.receipt), "dim"),
            )  # fmt: skip
        if row.started is not None:
            spent = time.monotonic() - row.started
            wheel = SPINNER[int(time.monotonic() * 8) % len(SPINNER)]
            glyph = Text(wheel, "bold") if self.live else Text("■", "yellow")
            return glyph, Text(row.label, "bold"), Text(format_seconds(spent), "bold"), forecast, ""
        return Text("·", "dim"), Text(row.label, "dim"), "", format_seconds(row.forecast), ""

    def _work(self, row: Row) -> RenderableType:
        """Draws the stage at work: how far, the loss as a line, speed, share of the machine, time left."""
        facts, lines = row.facts, []
        width = max(20, min(self.console.width - 4, 96))
        if row.total:
            part = min(row.done / row.total, 1.0)
            bar = Table.grid(padding=(0, 2, 0, 0))
            left = facts.get("left_seconds")
            told = f"{part:.0%}" + (f"  {left_text(left)}" if left is not None else "")
            count = f"{count_text(row.done)} of {count_text(row.total)}" if row.total > 1 else ""
            bar.add_row(
                ProgressBar(total=1.0, completed=part, width=width // 2, complete_style="cyan"),
                Text(told, "bold"), Text(count, "dim"),
            )  # fmt: skip
            lines.append(bar)
        elif row.done:
            lines.append(Text(f"{count_text(row.done)} done", "dim"))
        if facts.get("loss") is not None:
            line = Text.assemble(("loss ", "dim"), (f"{facts['loss']:.3f}", "bold"))
            if row.heldout is not None:
                line.append("  held-out ", "dim").append(f"{row.heldout:.3f} bits/byte", "bold")
            line.append("  ").append(spark(row.losses, max(10, width - line.cell_len - 4)), "cyan")
            lines.append(line)
        figures = Text()
        for name, label, write in (
            ("tokens_per_second", "tok/s", format_count),
            ("gemm_share", "of the machine's matrix speed", "{:.0%}".format),
            ("lr", "learning rate", "{:.2g}".format),
            ("memory_bytes", "memory", format_bytes),
        ):
            if facts.get(name) is not None:
                figures.append(f"{write(facts[name])} ", "bold").append(f"{label}   ", "dim")
        if figures:
            lines.append(figures)
        body = Table.grid(padding=(0, 0, 0, 2))
        for line in lines:
            body.add_row(line)
        return body
