"""A process that is silent is lost, one that works or whose listener slept is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from kogata.runtime import pulse
from kogata.runtime.pulse import Watch, beating


def after(watch: Watch, seconds: float, waiting: set[int], heard: int | None = None) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if heard is not None:
            watch.heard(heard)
        if (found := watch.lost(waiting)) is not None:
            return found
        time.sleep(0.02)
    return None


def test_who_is_silent_is_lost_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOST_SECONDS", 0.3)
    watch = Watch({0: None, 1: None})
    assert after(watch, 0.6, {0, 1}) is None  # Neither has said its first word.
    watch.heard(1)
    found = after(watch, 5.0, {0, 1}, heard=0)
    assert isinstance(found, tuple) and found[0] == 1 and found[1] >= 0.3
    watch = Watch({0: None, 1: None})
    watch.heard(1)
    assert after(watch, 0.6, {0}, heard=0) is None  # Whoever is done need not speak.


def test_who_slept_itself_takes_nobody_for_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch({0: None})
    watch.heard(0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000.0)
    assert watch.lost({0}) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="stops a process")
def test_who_works_without_a_word_is_not_lost_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOST_SECONDS", 1.0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            watch = Watch({0: process.pid})
            watch.heard(0)
            assert after(watch, 2.5, {0}) is None
            os.kill(process.pid, 19)
            found = after(watch, 20.0, {0})
            assert isinstance(found, tuple) and found[0] == 0
        finally:
            process.kill()


def test_beats_come_from_beside_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PULSE_SECONDS", 0.02)
    beats: list[float] = []
    with beating(lambda: beats.append(time.monotonic())):
        end = time.monotonic() + 30.0
        while len(beats) < 3 and time.monotonic() < end:
            sum(range(1000))
    assert len(beats) >= 3
    time.sleep(0.1)
    count = len(beats)
    time.sleep(0.2)
    assert len(beats) == count

    def gone() -> None:
        raise BrokenPipeError

    with beating(gone):
        pass
