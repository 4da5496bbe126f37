"""Receipts and machines: what a computer's measured rates say of other work."""

from __future__ import annotations

import pytest

from kogata.core.receipt import LEAST_PACE, MOST_PACE, PACE_POWER, TEXT_BYTES, Machine


@pytest.mark.parametrize(
    ("text_bytes", "seconds"),
    [
        (None, 10.0),  # Not measured: as where the rates were measured.
        (TEXT_BYTES, 10.0),
        (TEXT_BYTES / 2, 10.0 * 2**PACE_POWER),
        (TEXT_BYTES * 2, 10.0 / 2**PACE_POWER),
        (TEXT_BYTES / 1000, 10.0 * MOST_PACE),
        (TEXT_BYTES * 1000, 10.0 * LEAST_PACE),
    ],
)
def test_plain_work_follows_the_computer(text_bytes: float | None, seconds: float) -> None:
    assert Machine(text_bytes=text_bytes).paced(10.0) == pytest.approx(seconds)


def test_a_computer_half_as_fast_takes_longer_but_not_twice_as_long() -> None:
    slow, fast = Machine(text_bytes=TEXT_BYTES / 2), Machine(text_bytes=TEXT_BYTES)
    assert 1.5 * fast.paced(1.0) < slow.paced(1.0) < 2 * fast.paced(1.0)


def test_a_machine_written_before_its_pace_was_measured_is_read() -> None:
    parts = Machine(cores=2, gemm_flops=1e11).to_dict()
    del parts["text_bytes"]
    read = Machine.from_dict(parts)
    assert read.text_bytes is None and read.paced(3.0) == 3.0
    assert Machine.from_dict({**parts, "text_bytes": 2e6, "of_a_later_release": 1}).text_bytes == 2e6
