"""Screens: plain lines every ten seconds, a live drawing on a terminal, nothing when asked for nothing."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabricated_run import cost, receipts
from rich.console import Console

from kogata.core.amounts import Budget, Forecast
from kogata.report.live import LiveScreen
from kogata.report.screen import PlainScreen, Screen, SilentScreen, make_screen, spark

LINES = receipts()


def a_plan() -> Any:
    steps = [
        SimpleNamespace(
            step=SimpleNamespace(label=line.label),
            reused=line.status == "reused",
            forecast=Forecast(cost=line.forecast or cost(1, 1)),
        )
        for line in LINES
    ]
    recipe = SimpleNamespace(
        name="小説 <novels>", budget=Budget.model_validate({"time": "4min", "memory": "4GiB"})
    )
    return SimpleNamespace(recipe=recipe, steps=steps, total=cost(240, 1240))


FACTS = {
    "loss": 3.4567, "lr": 0.02, "tokens_per_second": 25_100.0, "gemm_share": 0.46, "left_seconds": 151.0,
    "memory_bytes": 1_181_116_006, "heldout_bits_per_byte": 1.7,
}  # fmt: skip


def play(screen: Screen, *, tick: Any = lambda: None) -> None:
    """Tells a screen all that a run tells it."""
    screen.event("note", text="runs/novels holds another run")
    screen.event("plan", plan=a_plan())
    for position, line in enumerate(LINES):
        if line.status == "reused":
            screen.event("reused", label=line.label, receipt=line)
            continue
        forecast = Forecast(cost=line.forecast or cost(1, 1))
        screen.event(
            "stage_start", label=line.label, stage=line.stage, index=position + 1, count=8, forecast=forecast
        )
        if line.label == "train.pretrain":
            screen.event("log", label=line.label, text="compiling [bold]pays[/bold]")
            for step in range(30):
                tick()
                screen.event("progress", label=line.label, done=step * 40, total=1180, facts=FACTS)
            screen.event("progress", label=line.label, done=7, total=None, facts={})
        screen.event("stage_done", label=line.label, receipt=line)
    screen.event("done", path=Path("runs/novels"), receipts=LINES, status="done", seconds=231.4)
    screen.event("an event of a later release", anything=1)
    screen.close()
    screen.close()


def test_the_plain_screen_says_a_line_every_ten_seconds() -> None:
    now = [0.0]

    def tick() -> None:
        now[0] += 1.0

    stream = io.StringIO()
    play(PlainScreen(stream, now=lambda: now[0]), tick=tick)
    lines = stream.getvalue().splitlines()
    progress = [line for line in lines if "loss" in line]
    assert [line.split("]")[0] for line in progress] == ["[0:10", "[0:20", "[0:30"]
    assert progress[0] == (
        "[0:10] train.pretrain  360/1,180 (31%)  loss 3.457  held-out 1.700 bits/byte  lr 0.02  25.1k tok/s  "
        "46% of the machine  1.1GiB  2min31s left"
    )
    assert "[0:00] 小説 <novels>: 8 stages · 1 reused · forecast 4min, 1.21GiB · budget 4min, 4GiB" in lines
    assert "[0:30] train.pretrain  done  3min13s (forecast 3min12s)  1.16GiB  4.21M parameters" in lines
    assert lines[-1] == "[0:30] done in 3min51s · 1.731 bits per byte · runs/novels"
    assert all("\x1b" not in line for line in lines)


@pytest.mark.parametrize("width", [40, 110])
def test_the_live_screen_draws_and_leaves_the_list_behind(width: int) -> None:
    stream = io.StringIO()
    screen = LiveScreen(console=Console(file=stream, force_terminal=True, width=width, height=40))
    play(screen)
    text = " ".join(stream.getvalue().split())
    assert "compiling [bold]pays[/bold]" in text
    assert "done in 3min51s" in text and "train.pretrain" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_the_live_screen_shows_the_work_at_hand() -> None:
    screen = LiveScreen(console=Console(file=io.StringIO(), force_terminal=True, width=110, height=40))
    screen.event("plan", plan=a_plan())
    screen.event(
        "stage_start", label="train.pretrain", stage="train.pretrain", index=6, count=8, forecast=None
    )
    for loss in (9.0, 6.0, 4.0, 3.4567):
        screen.event("progress", label="train.pretrain", done=590, total=1180, facts=FACTS | {"loss": loss})
    plain = Console(file=io.StringIO(), width=110, record=True)
    plain.print(screen.draw())
    screen.close()
    shown = plain.export_text()
    for words in (
        "小説 <novels>", "of 4:00", "memory 1.1GiB of 4GiB", "50%", "2min31s left", "590 of 1,180",
        "loss 3.457", "held-out 1.700 bits/byte", "25.1k tok/s", "46% of the machine's matrix speed",
    ):  # fmt: skip
        assert words in shown, words
    plain.print(screen.draw())
    assert "■  train.pretrain" in plain.export_text(), "a stage cut short is marked so when the screen closes"


def test_a_reader_that_left_does_not_stop_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    play(PlainScreen(Gone()))


def test_the_screen_fits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_screen(stream=Terminal()), LiveScreen)
    assert isinstance(make_screen(stream=io.StringIO()), PlainScreen)
    assert isinstance(make_screen(quiet=True), SilentScreen)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_screen(stream=Terminal()), PlainScreen)


def test_the_small_line_falls_with_the_loss() -> None:
    line = spark([9.0, 6.0, 5.0, 4.5, 4.2, 4.0, 3.9, 3.8, 3.7, 3.6], 10)
    assert line[0] == "█" and line[-1] == "▁" and len(line) == 10
    assert spark([1.0], 10) == "" and len(spark([1.0] * 50, 10)) == 10
