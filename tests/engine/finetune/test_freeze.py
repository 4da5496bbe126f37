"""Training some of a model's own weights: nothing else changes, and as many are trained as the plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples, write_model
from small_foreign import write_foreign
from training_bench import TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine.hf_folder import weight_files
from kogata.stages.train.finetune import Finetune

pytestmark = pytest.mark.filterwarnings("ignore")
ASKED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"parts": "norms", "top": "all"}, "norm"),
    ({"parts": "norms", "top": 1}, "norm"),
    ({"parts": "embeddings"}, "embed"),
    ({"top": "all"}, "layers.|norm"),
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_examples(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture(scope="module", params=["ours", "phi"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("model") / request.param
    return write_model(folder) if request.param == "ours" else write_foreign(folder, request.param)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = set(weight_files(folder).values())
    return {name: weight.float() for path in files for name, weight in load_file(path).items()}


@pytest.mark.parametrize(("settings", "words"), ASKED, ids=str)
def test_only_what_was_asked_for_is_trained(
    settings: dict[str, Any], words: str, examples: Artifact, model: Artifact, tmp_path: Path
) -> None:
    made = TrainingBench(tmp_path, machine=MACHINE)
    stage = Finetune.model_validate({"steps": 8, "batch": 4, "lr": 1e-2, "method": {"freeze": settings}})
    facts = {"examples": examples.facts, "model": model.facts}
    chosen = stage.resolve(facts, MACHINE, Share()).stage
    assert chosen.forecast(facts, MACHINE, Share()).cost.seconds
    found = chosen.run({"examples": examples, "model": model}, made)
    heldout = found["training"]["heldout"]
    assert heldout["loss"] < heldout["loss_before"]
    before, after = weights(model.path), weights(made.out)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    allowed = [*words.split("|"), *(["lm_head"] if words == "embed" else [])]
    assert changed and all(any(word in name for word in allowed) for name in changed), changed
    if settings.get("top") == 1:
        layers = {name.split("layers.")[1].split(".")[0] for name in changed if "layers." in name}
        assert layers == {"2"}
    if model.digest == "model":
        counted = sum(before[name].numel() for name in changed)
        assert chosen.method.variant.work(chosen._spec(facts)[0], chosen.method.settings).trained == counted


def test_embeddings_lie_in_no_layer() -> None:
    with pytest.raises((RecipeError, ValueError), match="embeddings lie in no layer"):
        Finetune.model_validate({"method": {"freeze": {"parts": "embeddings", "top": 2}}})
