"""Plans: wiring, verdicts, shares; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kogata import api
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.runtime.nodes import Nodes

ROOT = Path(__file__).resolve().parents[2]
SHAKESPEARE = str(ROOT / "examples/data/shakespeare/input.txt.gz")


def stages(**train: Any) -> list[dict[str, Any]]:
    return [
        {"data.read": {"path": SHAKESPEARE, "heldout": {"tail": 0.1}}},
        {"data.filter": {}},
        {"tokenizer.train": {}},
        {"tokenizer.encode": {}},
        {"train.pretrain": train},
        {"evaluate": {}},
        {"export": {"formats": ["hf", "gguf-q8_0"]}},
    ]


def plan(*parts: dict[str, Any], **top: Any) -> Any:
    return api.plan(api.Recipe.load({"name": "p", "stages": list(parts), **top}))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_stage_takes_the_newest_of_its_kind() -> None:
    steps = {item.step.label: item for item in plan(*stages(steps=10)).steps}
    assert steps["tokenizer.train"].inputs == {"corpus": "data.filter"}
    assert steps["train.pretrain"].inputs == {"tokens": "tokenizer.encode", "model": None}
    assert steps["data.read"].fused_into == "data.filter"
    assert steps["data.filter"].fused_into is None


def test_only_the_last_of_fused_neighbours_pays_for_writing() -> None:
    alone = plan(stages()[0]).steps[0].forecast
    first, second = plan(*stages()[:2]).steps
    assert alone.seal_seconds > 0 and alone.disk_bytes > 0
    assert first.forecast.cost.seconds == pytest.approx(alone.cost.seconds - alone.seal_seconds)
    assert first.forecast.disk_bytes == 0
    assert second.forecast.seal_seconds > 0 and second.forecast.disk_bytes > 0


def test_characters_train_with_smaller_steps_and_a_higher_rate() -> None:
    made = {}
    for name in ("characters", "bpe"):
        parts = stages(steps=200)
        parts[2] = {"tokenizer.train": {"method": name}}
        train = next(item for item in plan(*parts).steps if item.step.name == "train.pretrain")
        made[name] = (train.stage.batch, train.stage.lr)
    assert made["characters"][0] < made["bpe"][0]
    assert made["characters"][1] > made["bpe"][1]


def test_a_plan_without_elastic_time_adds_up() -> None:
    made = plan(*stages(steps=10))
    seconds = sum(item.forecast.cost.seconds or 0 for item in made.steps)
    assert made.total.seconds == pytest.approx(seconds + made.reserve_seconds + 3.0)
    assert made.refusals == ()


def test_training_takes_the_time_the_others_leave() -> None:
    made = plan(*stages(), budget={"time": "5min"})
    train = next(item for item in made.steps if item.step.name == "train.pretrain")
    others = sum(item.forecast.cost.seconds or 0 for item in made.steps if item is not train)
    assert train.share.seconds == pytest.approx(300 - others, abs=8)
    assert train.stage.clocked(train.share)


@pytest.mark.parametrize(
    ("budget", "part"),
    [
        ({"time": "8s"}, "time"),
        ({"memory": "200MB"}, "memory"),
        ({"size": "10kB"}, "size"),
        ({"energy": "5J"}, "energy"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_part(budget: dict[str, str], part: str) -> None:
    made = plan(*stages(steps=50), budget=budget)
    assert made.refusals and made.refusals[0].startswith(f"{part}: ")


def test_two_corpora_need_a_word() -> None:
    second = {"data.read": {"as": "more", "path": SHAKESPEARE, "heldout": {"tail": 0.1}}}
    with pytest.raises(RecipeError, match=r"could take its corpus from several stages") as caught:
        plan(stages()[0], second, {"tokenizer.train": {}})
    assert "use: {corpus: more}" in str(caught.value)
    made = plan(stages()[0], second, {"tokenizer.train": {"use": {"corpus": "more"}}})
    assert made.steps[-1].inputs == {"corpus": "more"}


def test_a_stage_without_its_input_says_what_makes_it() -> None:
    with pytest.raises(RecipeError, match="nothing before train.pretrain makes the tokens") as caught:
        plan(stages()[0], {"train.pretrain": {}})
    assert "tokenizer.encode" in str(caught.value)


def test_two_trainings_are_two_tries_unless_the_recipe_says_otherwise() -> None:
    first, second = ({"train.pretrain": {"as": name, "steps": 9}} for name in ("small", "large"))
    made = plan(*stages()[:4], first, second)
    assert made.steps[-1].inputs == {"tokens": "tokenizer.encode", "model": None}
    with pytest.raises(RecipeError, match="could take its model from several stages"):
        plan(*stages()[:4], first, second, {"evaluate": {}})
    second["train.pretrain"]["use"] = {"model": "small"}
    assert plan(*stages()[:4], first, second).steps[-1].inputs["model"] == "small"


def test_several_nodes_train_as_one_faster_computer_each_with_its_own_memory() -> None:
    parts = api.Recipe.load({"name": "p", "stages": stages(steps=10, batch=2048, context=128)})
    alone = api.plan(parts, processes=2)
    nodes = Nodes(count=2, rank=0, host="h", port=1)
    both = api.plan(parts, processes=2, nodes=nodes)
    found = [
        next(item for item in made.steps if item.step.name == "train.pretrain") for made in (alone, both)
    ]
    assert [item.share.processes for item in found] == [2, 4]
    assert found[1].forecast.cost.seconds < found[0].forecast.cost.seconds
    assert found[1].forecast.cost.peak_bytes <= 1.1 * found[0].forecast.cost.peak_bytes
    others = [[item.forecast.cost.seconds for item in made.steps[:4]] for made in (alone, both)]
    assert others[0] == others[1]


def test_a_computer_times_two_has_twice_the_rates() -> None:
    one = Machine(cores=2, memory_bytes=8, gemm_flops=3.0, watts=(5.0, 9.0), text_bytes=7.0)
    two = one.times(2)
    assert (two.cores, two.memory_bytes, two.gemm_flops, two.watts) == (4, 16, 6.0, (10.0, 18.0))
    assert two.bf16_flops is None and two.text_bytes == 7.0 and one.times(1) is one
