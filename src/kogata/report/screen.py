"""Screens: what a person sees on stderr while a recipe runs.

The runner calls `screen.event(name, **facts)`; a screen never changes what is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

from kogata.core.amounts import format_bytes, format_count, format_seconds
from kogata.core.receipt import Receipt, total_cost
from kogata.report.facts import highlights, mended_text


class Screen(Protocol):
    """What the runner reports to."""

    def event(self, name: str, **facts: Any) -> None:
        """Takes one event: plan, stage_start, progress, log, stage_done, reused, note or done."""
        ...

    def close(self) -> None:
        """Gives the terminal back; may be called twice."""
        ...


def make_screen(*, quiet: bool = False, stream: IO[str] | None = None) -> Screen:
    """Chooses the screen: silent, live on a terminal, else a plain line every ten seconds."""
    stream = stream or sys.stderr
    if quiet or stream is None:
        return SilentScreen()
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        from kogata.report.live import LiveScreen

        return LiveScreen(stream)
    return PlainScreen(stream)


class SilentScreen:
    """Says nothing."""

    def event(self, name: str, **facts: Any) -> None:
        """Takes an event and drops it."""

    def close(self) -> None:
        """Has nothing to give back."""


class PlainScreen:
    """One plain line at each stage's start and end, and every ten seconds between.

    Args:
        stream: where the lines go.
        every: seconds between two lines of progress.
        now: tells seconds, monotonic; tests pass their own.
    """

    def __init__(
        self, stream: IO[str] | None = None, *, every: float = 10.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream: IO[str] | None = stream or sys.stderr
        self.every, self.now = every, now
        self.begun = self.spoke = now()

    def event(self, name: str, **facts: Any) -> None:
        """Takes an event; prints a line when it is time."""
        if name == "progress":
            if self.now() - self.spoke >= self.every:
                self._say(f"{facts.get('label', '')}  {progress_text(facts)}")
            return
        text = event_text(name, facts)
        if text:
            self._say(text)

    def _say(self, text: str) -> None:
        self.spoke = self.now()
        at = f"[{format_clock(self.spoke - self.begun)}]"
        if self.stream is None:
            return
        try:
            for line in text.splitlines():
                print(at, line, file=self.stream, flush=True)
        except (BrokenPipeError, ValueError):
            # Nobody reads stderr any more; the run goes on.
            self.stream = None

    def close(self) -> None:
        """Leaves the stream as it is."""


def event_text(name: str, facts: dict[str, Any]) -> str:
    """Says an event in a line; empty for what needs none."""
    if name == "plan":
        return plan_text(facts["plan"])
    if name == "stage_start":
        forecast = facts.get("forecast")
        seconds = getattr(getattr(forecast, "cost", forecast), "seconds", None)
        about = f"  about {format_seconds(seconds)}" if seconds is not None else ""
        return f"{facts['label']}  {facts.get('index', '?')} of {facts.get('count', '?')}{about}"
    if name in ("stage_done", "reused"):
        return receipt_text(facts["receipt"])
    if name == "log":
        label = facts.get("label")
        return f"{label}  {facts.get('text', '')}" if label else str(facts.get("text", ""))
    if name == "note":
        return str(facts.get("text", ""))
    if name == "done":
        return done_text(facts)
    return ""


def plan_text(plan: Any) -> str:
    """Says a plan in a line: name, stages, forecast, budget."""
    reused = sum(step.reused for step in plan.steps)
    parts = [f"{plan.recipe.name}: {len(plan.steps)} stages"]
    if reused:
        parts.append(f"{reused} reused")
    parts.append(f"forecast {format_seconds(plan.total.seconds)}, {format_bytes(plan.total.peak_bytes)}")
    budget = plan.recipe.budget
    limits = [format_seconds(budget.time)] if budget.time else []
    limits += [format_bytes(budget.memory)] if budget.memory else []
    if limits:
        parts.append(f"budget {', '.join(limits)}")
    return " · ".join(parts)


def receipt_text(receipt: Receipt) -> str:
    """Says a receipt in a line: what was done, what it took against the forecast, its main figure."""
    cost, forecast = receipt.cost, receipt.forecast
    parts = [f"{receipt.label}  {receipt.status}"]
    if receipt.status in ("done", "fused") and cost and cost.seconds is not None:
        against = f" (forecast {format_seconds(forecast.seconds)})" if forecast and forecast.seconds else ""
        parts.append(f"{format_seconds(cost.seconds)}{against}")
        if cost.peak_bytes:
            parts.append(format_bytes(cost.peak_bytes))
    figure = figure_of(receipt)
    if figure:
        parts.append(figure)
    mended = mended_text(receipt.facts.get("account") or {})
    if mended:
        parts.append(mended)
    if receipt.reason:
        parts.append(receipt.reason.splitlines()[0])
    return "  ".join(parts)


def figure_of(receipt: Receipt) -> str:
    """Gives the one figure that says most about what a stage made; empty when there is none."""
    facts = receipt.facts
    score = facts.get("bits_per_byte")
    if isinstance(score, dict) and score.get("value") is not None:
        return f"{score['value']:.3f} bits per byte"
    if isinstance(facts.get("files"), dict):
        return ", ".join(f"{name} {format_bytes(file.get('bytes'))}" for name, file in facts["files"].items())
    if receipt.kind == "model" and facts.get("parameters"):
        return f"{format_count(facts['parameters'])} parameters"
    if receipt.kind == "tokenizer" and facts.get("vocab_size"):
        return f"{facts['vocab_size']} entries"
    train = (facts.get("splits") or {}).get("train") or {}
    if train.get("tokens"):
        return f"{format_count(train['tokens'])} tokens"
    if train.get("documents"):
        return f"{train['documents']} documents, {format_bytes(train.get('bytes'))}"
    return ""


def done_text(facts: dict[str, Any]) -> str:
    """Says how a run ended: time, quality, where."""
    receipts: list[Receipt] = facts.get("receipts") or []
    seconds = facts.get("seconds")
    seconds = total_cost(receipts).seconds if seconds is None else seconds
    score = highlights(receipts)["bits_per_byte"]
    quality = f" · {score:.3f} bits per byte" if score is not None else ""
    return f"{facts.get('status', 'done')} in {format_seconds(seconds)}{quality} · {facts.get('path')}"


def progress_parts(facts: dict[str, Any]) -> list[str]:
    """Gives the figures of a progress event, ready to join; those not known are left out."""
    inner = {**(facts.get("facts") or {}), **{k: v for k, v in facts.items() if k != "facts"}}
    shown: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("loss", lambda value: f"loss {value:.3f}"),
        ("heldout_bits_per_byte", lambda value: f"held-out {value:.3f} bits/byte"),
        ("lr", lambda value: f"lr {value:.2g}"),
        ("tokens_per_second", lambda value: f"{format_count(value)} tok/s"),
        ("gemm_share", lambda value: f"{value:.0%} of the machine"),
        ("memory_bytes", format_bytes),
        ("left_seconds", left_text),
    )
    return [write(inner[name]) for name, write in shown if inner.get(name) is not None]


def left_text(seconds: float) -> str:
    """Says how much of the time budget is left, or by how much it is passed."""
    return f"{format_seconds(seconds)} left" if seconds >= 0 else f"{format_seconds(-seconds)} over budget"


def progress_text(facts: dict[str, Any]) -> str:
    """Says a progress event in a line: how far, loss, speed, share of the machine, memory, time left."""
    done, total = facts.get("done"), facts.get("total")
    head = [far_text(done, total)] if done is not None else []
    return "  ".join(head + progress_parts(facts))


def far_text(done: float, total: float | None) -> str:
    """Says how far something is: `360/1,180 (31%)`; of a share, the percentage alone."""
    if not total:
        return count_text(done)
    if total <= 1:
        return f"{done / total:.0%}"
    return f"{count_text(done)}/{count_text(total)} ({done / total:.0%})"


def count_text(count: float) -> str:
    """Writes steps and documents exactly, what is larger in short."""
    return f"{count:,.0f}" if count < 100_000 else format_count(count)


def format_clock(seconds: float) -> str:
    """Writes seconds as a clock: `0:42`, `12:05`, `1:02:05`."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float], width: int) -> str:
    """Draws values as a line of small bars, the newest at the right; a steep beginning is cut at the top."""
    kept = list(values)
    if len(kept) < 2:
        return ""
    if len(kept) > width:
        size = len(kept) / width
        groups = [kept[int(i * size) : max(int((i + 1) * size), int(i * size) + 1)] for i in range(width)]
        kept = [sum(group) / len(group) for group in groups]
    shown = kept[len(kept) // 8 :]
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[max(0, min(7, int((value - low) / span * 8)))] for value in kept)
