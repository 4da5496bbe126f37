"""train.pretrain's patterns, sharing, narrow embeddings and experts: trained, resumed, refused in time."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_bench import MACHINE, NOVELS, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.nn.kernels import Kernels
from kogata.stages.train.pretrain import Pretrain

SIZES: dict[str, Any] = {"family": "kogata", "layers": 4, "width": 16, "heads": 2, "ffn_width": 32}
SHAPES: dict[str, dict[str, Any]] = {
    "windows": {"pattern": [{"window": {"size": 6}}, "full"], "kv_heads": 1},
    "recurrent": {"pattern": ["gated_delta", "short_conv", {"compressive": {"size": 4}}, "full"]},
    "shared and narrow": {"sharing": {"times": 2}, "embed_width": 8},
    "loops of experts": {"sharing": {"loops": 2, "rank": 2}, "ffn": {"experts": {"count": 3}}},
    "gemma3": {"family": "gemma3"},
    "lfm2": {"family": "lfm2", "tied": True},
    "qwen3_5": {"family": "qwen3_5"},
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.set_num_threads(1)
    return make_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(autouse=True, scope="module")
def built_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Walking a whole test session takes a third of a second each time.
        patch.setattr(gc, "collect", lambda *_: 0)
        kernels = Kernels.build()
        patch.setattr(Kernels, "build", staticmethod(lambda: kernels))
        yield


def run(tokens: Artifact, bench: TrainingBench, shape: dict[str, Any], **settings: Any) -> dict[str, Any]:
    stage = Pretrain(**{"model": {**SIZES, **shape}, "context": 16, "batch": 64, **settings})
    facts = {"tokens": tokens.facts, "model": None}
    made = stage.resolve(facts, bench.machine, bench.share).stage
    found = made.run({"tokens": tokens, "model": None}, bench)
    forecast = made.forecast(facts, bench.machine, bench.share).facts
    assert {**found, "training": None} == {**forecast, "training": None}
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_trains_and_resumes_to_the_bit(shape: str, tokens: Artifact, tmp_path: Path) -> None:
    machine = replace(MACHINE, compiler=shape in ("windows", "recurrent", "shared and narrow"))
    whole = TrainingBench(tmp_path / "whole", machine=machine)
    facts = run(tokens, whole, SHAPES[shape], steps=6)
    fused = machine.compiler and Kernels.build() is not None
    assert facts["training"]["kernels"] == ("fused" if fused else "torch")
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        bench = TrainingBench(killed, machine=machine, kill_at=4)
        run(tokens, bench, SHAPES[shape], steps=6, checkpoint_every=2)
    resumed = TrainingBench(killed, machine=machine)
    run(tokens, resumed, SHAPES[shape], steps=6, checkpoint_every=2)
    for name in ("model.safetensors", "metrics.jsonl", "config.json"):
        assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes(), name
    assert whole.rows[-1]["loss"] < 5.0


def test_narrow_embeddings_start_as_a_bigram_model(tokens: Artifact, tmp_path: Path) -> None:
    losses = {}
    for width in (12, None):
        for start in (True, False):
            bench = TrainingBench(tmp_path / f"{width}-{start}")
            run(tokens, bench, {"embed_width": width}, steps=1, corpus_start=start)
            losses[width, start] = bench.rows[0]["loss"]
    assert losses[12, True] < losses[12, False] - 0.5
    assert losses[12, True] < losses[None, True] + 0.5, "a lower rank costs a little"


def test_a_given_model_keeps_its_shape(tokens: Artifact, tmp_path: Path) -> None:
    first = TrainingBench(tmp_path)
    facts = run(tokens, first, {}, steps=1)
    given = {"tokens": tokens.facts, "model": facts}
    for model in ({}, {"layers": 4, "width": 16}, {"family": "kogata", "pattern": ["full"]}):
        Pretrain(model=model, steps=1).resolve(given, MACHINE, Share())
    for model, field in (
        ({"layers": 5, "width": 16}, "layers"),
        ({"pattern": ["window", "full"]}, "pattern"),
        ({"family": "llama"}, "family"),
        ({"parameters": "1M"}, "parameters"),
        ({"sharing": {"times": 2}}, "sharing"),
        ({"ffn": "relu2"}, "ffn"),
    ):
        with pytest.raises(RecipeError, match=f"model.{field}"):
            Pretrain(model=model, steps=1).resolve(given, MACHINE, Share())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"pattern": ["full"] * 5}, "1 to 4, the model's layers"),
        ({"pattern": ["full"] * 3, "sharing": {"times": 2}}, "1 to 2, the blocks"),
        ({"family": "llama", "pattern": ["window"]}, "qwen2 | qwen3 | gemma3 | kogata"),
        ({"pattern": [{"window": {"size": 4096}}]}, "at most the context of 256"),
        ({"family": "qwen3", "embed_width": 8}, "family: kogata"),
        ({"heads": 3}, "model.heads"),
    ],
)
def test_what_cannot_be_is_refused_in_the_plan(model: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        stage = Pretrain(model={**SIZES, **model}, steps=5)
        stage.resolve({"tokens": NOVELS, "model": None}, MACHINE, Share())
    assert message in str(caught.value)


def test_what_does_not_fit_says_what_would() -> None:
    share = Share(memory_bytes=3 * 2**30)
    facts = {"tokens": NOVELS, "model": None}
    model = {"layers": 8, "width": 512, "pattern": ["window", "window", "window", "full"]}
    asked: dict[str, Any] = {"context": 16_384, "batch": 16_384, "steps": 5, "recompute": False}
    stage = Pretrain(model=model, **asked).resolve(facts, MACHINE, share).stage
    forecast = stage.forecast(facts, MACHINE, share)
    assert (forecast.cost.peak_bytes or 0) > share.memory_bytes
    found = forecast.advice
    assert "a context of " in found and "layers of width" in found
    shorter = int(found.split("a context of ")[1].split(" ")[0].replace(",", ""))
    layers, width = (int(word) for word in found.split(" or ")[1].split() if word.isdigit())
    for change in ({"context": shorter}, {"model": {**model, "layers": layers, "width": width}}):
        settings = {"model": model, **asked, **change}
        smaller = Pretrain(**settings).resolve(facts, MACHINE, share).stage
        made = smaller.forecast(facts, MACHINE, share)
        assert (made.cost.peak_bytes or 0) <= share.memory_bytes and not made.advice


def test_plans_of_every_shape_import_no_torch(root: Path) -> None:
    code = (
        "import sys\n"
        "from kogata.core.receipt import Machine\n"
        "from kogata.core.stage import Share\n"
        "from kogata.stages.train.pretrain import Pretrain\n"
        f"facts = {{'tokens': {NOVELS!r}, 'model': None}}\n"
        f"for shape in {list(SHAPES.values())!r}:\n"
        f"    stage = Pretrain(model={{**{SIZES!r}, **shape}}, steps=3)\n"
        "    made = stage.resolve(facts, Machine(), Share()).stage\n"
        "    made.forecast(facts, Machine(), Share())\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_plan_says_what_a_pattern_saves() -> None:
    model = {"layers": 8, "width": 256, "pattern": [{"window": {"size": 256}}] * 7 + ["full"]}
    given: dict[str, Any] = {"tokens": NOVELS, "model": None}
    stage = Pretrain(model=model, context=16_384, batch=16_384, steps=5)
    reasons = stage.resolve(given, MACHINE, Share()).reasons
    assert "15% of full attention's" in reasons["model.pattern"]
    assert "model.pattern" not in Pretrain(steps=5).resolve(given, MACHINE, Share()).reasons
