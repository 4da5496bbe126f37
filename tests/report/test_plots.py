"""Plots: round ticks, lines that keep their ends, no request for a library."""

from __future__ import annotations

import pytest

from kogata.report.plots import Axis, Series, bar, clock_text, clock_ticks, line_plot, smooth, thin, ticks


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 10, [0, 2, 4, 6, 8, 10]),
     (1.45, 2.8, [1.5, 1.75, 2, 2.25, 2.5, 2.75]),
     (0, 0.02, [0, 0.005, 0.01, 0.015, 0.02])],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high, 5) == found


def test_times_are_cut_where_clocks_are() -> None:
    assert clock_ticks(0, 193, 6) == [0, 30, 60, 90, 120, 150, 180]
    assert [clock_text(value) for value in (0.0, 0.4, 30, 125, 3725)] == [
        "0:00",
        "0.4s",
        "0:30",
        "2:05",
        "1:02:05",
    ]


def test_thinning_keeps_the_last_point_and_the_mean() -> None:
    points = [(float(i), 1.0 if i % 2 else 3.0) for i in range(1000)]
    kept = thin(points, 100)
    assert len(kept) == 100 and kept[-1] == points[-1]
    assert all(y == 2.0 for _, y in kept[:-1])
    assert thin(points[:50], 100) == points[:50]


def test_smoothing_follows_a_straight_line_exactly() -> None:
    points = [(float(i), 5.0 - 0.01 * i) for i in range(300)]
    assert smooth(points, 20) == [(x, pytest.approx(y)) for x, y in points]


def test_smoothing_does_not_end_on_the_noise_of_the_last_step() -> None:
    points = [(float(i), 2.0) for i in range(299)] + [(299.0, 3.0)]
    lines = smooth(points, 20)
    assert [x for x, _ in lines] == [x for x, _ in points]
    assert abs(lines[-1][1] - 2.0) < 0.1 and abs(lines[-20][1] - lines[-21][1]) < 0.01


def test_text_of_a_plot_is_escaped() -> None:
    html = line_plot(
        [Series(name="<b>", points=[(0, 1), (1, 2)])], Axis(name='"x"'), Axis(name="y"), title="a<script>"
    )
    assert "<script>" not in html and "a&lt;script&gt;" in html
    assert "<b>&" not in html.replace("<b>a&lt;", "")


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(1.0, 2.0), (1.0, 2.0)], [(0.0, float("nan"))]])
def test_few_points_are_no_error(points: list[tuple[float, float]]) -> None:
    html = line_plot([Series(name="a", points=points)], Axis(name="x"), Axis(name="y"), title="t")
    assert "nan" not in html


def test_a_bar_never_leaves_its_track() -> None:
    assert "width:100.00%" in bar(5, 2, mark=9) and "left:100.00%" in bar(5, 2, mark=9)
    assert "width:0.00%" in bar(0, 0)
