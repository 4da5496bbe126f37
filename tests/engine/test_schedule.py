"""Schedules: by steps, by a clock that the test moves, and the one replayed as the other."""

from __future__ import annotations

import pytest

from kogata.core.recipe import Clock
from kogata.engine.schedule import StepSchedule, TimeSchedule, decayed


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def factors(schedule: StepSchedule) -> list[float]:
    return [schedule.next(step)[0] for step in range(schedule.steps)]  # type: ignore[index]


def test_steps_rise_hold_and_fall_to_nothing() -> None:
    found = factors(StepSchedule(steps=100, warmup=10, decay=0.5))
    assert found[0] == pytest.approx(1 / 11) and found[10] == 1.0 and found[49] == 1.0
    assert found[50] < 1.0 and found[-1] < 0.03
    assert all(a >= b for a, b in zip(found[10:], found[11:], strict=False))
    assert StepSchedule(steps=100).next(100) is None


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("sqrt", 1 - 0.5**0.5)])
def test_shapes(shape: str, middle: float) -> None:
    assert decayed(1, shape) == 1 and decayed(0, shape) == 0 and decayed(0.5, shape) == pytest.approx(middle)


def drive(
    schedule: TimeSchedule, time: Time, paces: list[float], steps: int = 10_000
) -> tuple[int, list[float]]:
    found = []
    for step in range(steps):
        ahead = schedule.next(step)
        if ahead is None:
            return step, found
        found.append(ahead[0])
        time.now += paces[min(step, len(paces) - 1)]
        schedule.done(step)
    raise AssertionError("it never ended")


@pytest.mark.parametrize("paces", [[0.5], [2.0, 0.5], [0.3] * 100 + [0.7]])
def test_time_is_kept_and_the_rate_ends_near_nothing(paces: list[float]) -> None:
    time = Time()
    schedule = TimeSchedule(clock=Clock(103.0, time), reserve=3.0, decay=0.6)
    steps, found = drive(schedule, time, paces)
    assert 103.0 - 3.0 - 0.8 <= time.now <= 103.0 - 3.0 + 0.5
    assert found[-1] < 0.02
    record = schedule.record(steps)
    assert record["steps"] == steps and 0 < record["decay_start"] < steps


def test_a_stall_shortens_the_run_and_not_the_decay() -> None:
    time = Time()
    schedule = TimeSchedule(clock=Clock(100.0, time), decay=0.6)
    _, found = drive(schedule, time, [0.5] * 100 + [20.0] + [0.5])
    assert time.now <= 100.5 and found[-1] < 0.05


def test_replays_without_a_clock() -> None:
    time = Time()
    schedule = TimeSchedule(clock=Clock(100.0, time), warmup=5, decay=0.4)
    steps, found = drive(schedule, time, [0.5])
    record = schedule.record(steps)
    replay = StepSchedule(steps=steps, warmup=record["warmup"], decay=1 - record["decay_start"] / steps)
    assert replay.decay_start == record["decay_start"]
    assert factors(replay) == pytest.approx(found, abs=0.02)


def test_goes_on_after_a_stop() -> None:
    time = Time()
    first = TimeSchedule(clock=Clock(100.0, time), decay=0.5)
    for step in range(60):
        first.next(step)
        time.now += 0.5
        first.done(step)
    state = first.state()
    assert state["spent"] == pytest.approx(30.0)
    later = Time()
    second = TimeSchedule(clock=Clock(70.0, later), decay=0.5)
    second.load(state)
    steps, found = drive(second, later, [0.5])
    assert second.horizon == pytest.approx(100.0)
    assert found[0] == pytest.approx(1 / 11) or found[0] == 1.0
    assert found[-1] < 0.02 and steps == pytest.approx(140, abs=2)


def test_a_limit_of_its_own_binds_without_a_deadline() -> None:
    time = Time()
    schedule = TimeSchedule(clock=Clock(None, time), limit=20.0)
    drive(schedule, time, [0.5])
    assert time.now == pytest.approx(20.0, abs=0.6)


def test_a_time_too_short_for_warm_up_still_ends() -> None:
    time = Time()
    schedule = TimeSchedule(clock=Clock(2.0, time), warmup=100)
    steps, found = drive(schedule, time, [0.5])
    assert steps >= 3 and max(found) > 0.2
