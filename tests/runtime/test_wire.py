"""Wiring of adapters: what follows fine-tuning takes the tuned model, or says why it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from kogata import api
from kogata.core.errors import RecipeError
from kogata.runtime.plan import wire

READ = {"data.read": {"path": "rows.csv", "kind": "examples"}}
MODEL = {"model.read": {"name": "smollm2"}}
TUNE = {"train.finetune": {}}


def wired(*stages: dict[str, Any]) -> dict[str, Any]:
    return wire(api.Recipe.load({"name": "w", "stages": list(stages)}))[0]


def labelled(stage: str, label: str, **settings: Any) -> dict[str, Any]:
    return {stage: {"as": label, **settings}}


def test_scores_and_exports_take_base_and_adapter() -> None:
    found = wired(READ, MODEL, TUNE, {"evaluate": {}}, {"export": {}})
    for label in ("evaluate", "export"):
        assert (found[label]["model"], found[label]["adapter"]) == ("model.read", "train.finetune")
    merged = wired(READ, MODEL, {"train.finetune": {"merge": True}}, {"evaluate": {}})
    assert (merged["evaluate"]["model"], merged["evaluate"]["adapter"]) == ("train.finetune", None)
    before = wired(READ, MODEL, {"evaluate": {}}, TUNE)
    assert before["evaluate"]["adapter"] is None


@pytest.mark.parametrize("stage", ["train.finetune", "train.classify"])
def test_no_stage_takes_the_untuned_model_in_silence(stage: str) -> None:
    with pytest.raises(RecipeError, match="merge: true") as caught:
        wired(READ, MODEL, TUNE, labelled(stage, "second"))
    assert "as it was before train.finetune" in str(caught.value)
    asked = wired(READ, MODEL, TUNE, labelled(stage, "second", use={"model": "model.read"}))
    assert asked["second"]["model"] == "model.read"
    chained = wired(READ, MODEL, {"train.finetune": {"merge": True}}, labelled(stage, "second"))
    assert chained["second"]["model"] == "train.finetune"


def test_an_adapter_goes_with_its_own_base() -> None:
    stages = [READ, MODEL, TUNE, labelled("model.read", "other", name="minilm")]
    stages += [labelled("train.finetune", "tuned", use={"model": "other"})]
    for model, adapter in (("model.read", "train.finetune"), ("other", "tuned")):
        found = wired(*stages, {"evaluate": {"use": {"model": model}}})
        assert found["evaluate"]["adapter"] == adapter
