"""Comparisons: paired seeds in turn, shared artifacts reused, an interval and a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kogata import api
from kogata.core.errors import RecipeError
from kogata.core.statistics import mean_interval, paired
from kogata.runtime.ledger import read_receipts
from tests.runtime.test_run import CHAIN, place, recipe  # noqa: F401


def test_variants_over_seeds(place: Path) -> None:  # noqa: F811
    made = recipe(place, *CHAIN)
    found = api.compare(made, without=["toy.odd"], settings={"toy.train.steps": [3, 4]}, seeds=2)
    assert list(found.values) == ["as it stands", "without toy.odd", "toy.train.steps=4"]
    assert found.values["as it stands"]["bits_per_byte"] == [1.0, 1.01]
    rows = found.to_dict()["rows"]
    assert rows[1]["measures"]["bits_per_byte"]["difference"]["mean"] == 0
    assert rows[1]["measures"]["bits_per_byte"]["verdict"] == "no difference shown"
    assert json.loads((found.path / "comparison.json").read_text())["seeds"] == [0, 1]
    second = read_receipts(found.path / "as-it-stands" / "seed-1")
    assert [item.status for item in second if item.label == "toy.odd"] == ["reused"]


def test_matched_on_steps_the_others_take_what_the_baseline_took(place: Path) -> None:  # noqa: F811
    made = recipe(place, CHAIN[0], CHAIN[1], {"toy.train": {}}, CHAIN[3], budget={"time": "12s"})
    found = api.compare(made, without=["toy.odd"], seeds=1, match="steps")
    taken = [
        receipt.facts["training"]["steps"]
        for name in ("as-it-stands", "without-toy.odd")
        for receipt in read_receipts(found.path / name / "seed-0")
        if receipt.stage == "toy.train"
    ]
    assert taken[0] == taken[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to compare"),
        ({"without": ["toy.odd"], "match": "luck"}, "unknown match"),
        ({"settings": {"toy.train.steps": [3]}}, "nothing to compare"),
        ({"without": ["toy.od"]}, "toy.odd"),
    ],
)
def test_what_cannot_be_compared_is_refused(place: Path, options: dict, message: str) -> None:  # noqa: F811
    with pytest.raises(RecipeError, match=message):
        api.compare(recipe(place, *CHAIN), **options)


def test_intervals_are_students() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert mean_interval([5.0]) == (5.0, None)
    gap = paired([1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    assert gap.mean == pytest.approx(-1)
    assert gap.verdict(lower_is_better=True) == "better"
    assert gap.verdict(lower_is_better=False) == "worse"
    assert paired([1.0], [2.0]).verdict(lower_is_better=True) == "one seed: no verdict"
