"""Amounts: what is typed, what is printed, what adds."""

import pytest
from pydantic import ValidationError

from kogata.core.amounts import (
    Budget,
    Cost,
    Energy,
    Forecast,
    exact_bytes,
    exact_seconds,
    format_bytes,
    format_count,
    format_joules,
    format_seconds,
    parse_bytes,
    parse_joules,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5min", 300), ("1h30m", 5400), ("1h 30min", 5400), ("250ms", 0.25)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds
    assert parse_seconds(exact_seconds(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "amount"), [("4GiB", 4 * 2**30), ("100MB", 10**8), ("1.5 MiB", 3 * 2**19), ("12b", 12)]
)
def test_bytes(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount
    assert parse_bytes(exact_bytes(amount)) == amount


def test_energies() -> None:
    assert parse_joules("20kJ") == 20_000
    assert parse_joules("5Wh") == 18_000


@pytest.mark.parametrize("value", [5, 5.0, True, "5", "", "min", "5 parsecs", "-5min", "0s", None, "5min!"])
def test_a_bare_number_or_an_unknown_unit_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match=r"unit|example|more than nothing"):
        parse_seconds(value)


def test_budget_reads_and_writes_what_people_type() -> None:
    budget = Budget.model_validate({"time": "4min", "memory": "4GiB"})
    assert budget.time == 240
    assert budget.model_dump(mode="json", exclude_none=True) == {"time": "4min", "memory": "4GiB"}
    assert Budget.model_validate(budget.model_dump(mode="json", exclude_none=True)) == budget
    with pytest.raises(ValidationError, match="bare value 240"):
        Budget.model_validate({"time": 240})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1234, "0.12s"), (12.34, "12.3s"), (240, "4min"), (245, "4min05s"), (5400, "1h30min")],
)
def test_seconds_are_printed_as_people_read_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_other_amounts_are_printed_as_people_read_them() -> None:
    assert format_bytes(812) == "812B"
    assert format_bytes(123_456_789) == "118MiB"
    assert format_joules(2345) == "2.35kJ"
    assert format_count(8_123_456) == "8.12M"
    assert [f(None) for f in (format_seconds, format_bytes, format_joules, format_count)] == ["–"] * 4


def test_costs_add_and_peaks_do_not() -> None:
    first = Cost(seconds=1, joules=Energy(low=1, high=2, source="modelled:a"), peak_bytes=10, size_bytes=3)
    second = Cost(seconds=2, joules=Energy(low=1, high=2, source="modelled:a"), peak_bytes=7, size_bytes=4)
    total = first + second
    assert (total.seconds, total.peak_bytes, total.size_bytes) == (3, 10, 4)
    assert total.joules == Energy(low=2, high=4, source="modelled:a")
    assert Cost.from_dict(total.to_dict()) == total


def test_a_fused_stage_does_not_pay_for_writing() -> None:
    cost = Cost(seconds=4.0, cpu_seconds=5.0, joules=Energy(low=8, high=12, source="m"), peak_bytes=9)
    alone = Forecast(facts={"a": 1}, cost=cost, disk_bytes=7, seal_seconds=1.0)
    left = alone.fused()
    assert (left.cost.seconds, left.cost.cpu_seconds, left.cost.peak_bytes) == (3.0, 4.0, 9)
    assert left.cost.joules == Energy(low=6, high=9, source="m")
    assert (left.facts, left.disk_bytes) == ({"a": 1}, 0)
    assert left.fused() == left


def test_unmeasured_stays_unmeasured() -> None:
    assert (Cost() + Cost()).seconds is None
    assert (Cost() + Cost(seconds=1.0)).seconds == 1.0
