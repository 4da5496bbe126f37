"""Comparisons: paired seeds in turn, shared artifacts reused, an interval and a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kogata import api
from kogata.core.amounts import Cost, Energy
from kogata.core.errors import RecipeError
from kogata.core.receipt import Receipt
from kogata.core.statistics import mean_interval, paired
from kogata.runtime.compare import _free_folder, judged_by, measures_of
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
    page = (found.path / "report.html").read_text(encoding="utf-8")
    assert "toy: compared" in page and "toy.train.steps=4" in page and "seed 1" in page
    assert found.to_dict()["recipe"]["stages"] and "seed" not in found.to_dict()["recipe"]


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


def test_another_question_gets_a_folder_of_its_own_and_more_seeds_the_same(tmp_path: Path) -> None:
    asked = {"recipe": {"name": "toy"}, "match": "time", "variants": ["as it stands", "without toy.odd"]}
    wanted = tmp_path / "toy-compare"
    assert _free_folder(wanted, asked) == wanted
    wanted.mkdir()
    assert _free_folder(wanted, asked) == wanted  # stopped before its end
    rows = [{"variant": variant} for variant in asked["variants"]]
    kept = {"recipe": {"name": "toy"}, "match": "time", "seeds": [0], "rows": rows}
    (wanted / "comparison.json").write_text(json.dumps(kept))
    assert _free_folder(wanted, asked) == wanted
    second = tmp_path / "toy-compare-2"
    for other in (
        {"match": "steps"},
        {"variants": ["as it stands"]},
        {"recipe": {"name": "toy", "stages": []}},
    ):
        assert _free_folder(wanted, {**asked, **other}) == second
    (wanted / "comparison.json").write_text("{")
    assert _free_folder(wanted, asked) == second
    second.mkdir()
    (second / "receipts.jsonl").touch()  # a run lies there
    assert _free_folder(wanted, asked) == tmp_path / "toy-compare-3"


def test_measures_are_of_what_was_made_from_something(tmp_path: Path) -> None:
    def receipt(kind: str, inputs: dict, facts: dict, seconds: float, size: int) -> Receipt:
        joules = Energy(low=seconds, high=2 * seconds, source="modelled:x")
        spent = Cost(seconds=seconds, size_bytes=size, joules=joules)
        return Receipt(
            key=kind, label=kind, stage=kind, status="done", kind=kind, inputs=inputs, facts=facts,
            cost=spent, first_cost=spent,
        )  # fmt: skip

    base = receipt("model", {}, {"parameters": 5}, 9.0, 500)
    tuned = receipt("adapter", {"model": "digest"}, {"training": {"steps": 1}}, 2.0, 40)
    answers = receipt("scores", {"adapter": "d"}, {"examples": {"loss_nats_per_token": 0.7}}, 1.0, 1)
    files = receipt("bundle", {"adapter": "d"}, {"files": {"a": {"bytes": 7}, "b": {"bytes": 3}}}, 1.0, 9)
    found = measures_of(api.Run(path=tmp_path, plan=None, receipts=[base, tuned, answers, files]))
    assert found["training_seconds"] == 2.0 and found["total_seconds"] == 13.0
    assert found["answer_loss"] == 0.7 and judged_by(found) == "answer_loss"
    assert (found["joules_low"], found["joules_high"], found["file_bytes"]) == (13.0, 26.0, 7.0)

    kept = {"methods": {"probe": {"accuracy": 0.8}, "full": {"accuracy": 0.7}}, "method": "probe"}
    sorter = receipt("model", {"examples": "d"}, kept, 2.0, 40)
    found = measures_of(api.Run(path=tmp_path, plan=None, receipts=[base, sorter]))
    assert found["accuracy"] == 0.8 and judged_by(found) == "accuracy" and found["model_bytes"] == 40
    test = receipt("scores", {"model": "d"}, {"labels": {"accuracy": 0.0}}, 1.0, 1)
    assert measures_of(api.Run(path=tmp_path, plan=None, receipts=[sorter, test]))["accuracy"] == 0.0

    tagger = receipt(
        "model", {"examples": "d"}, {"methods": {"full": {"f1": 0.6}}, "method": "full"}, 2.0, 40
    )
    found = measures_of(api.Run(path=tmp_path, plan=None, receipts=[base, tagger]))
    assert found["f1"] == 0.6 and judged_by(found) == "f1"
    test = receipt("scores", {"model": "d"}, {"tags": {"f1": 0.5}}, 1.0, 1)
    assert measures_of(api.Run(path=tmp_path, plan=None, receipts=[tagger, test]))["f1"] == 0.5


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
