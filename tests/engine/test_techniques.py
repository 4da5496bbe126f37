"""Techniques that a recipe names: what they do to the weights, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.engine import techniques
from kogata.engine.loop import train
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import hold_gains
from kogata.engine.technique import Moment, Technique
from kogata.engine.techniques import average, dropout, grow
from kogata.nn.fused import FusedHidden
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec
from tests.engine.test_loop import same, training, weights

CHOSEN: dict[str, dict[str, Any]] = {
    "average": {"average": average.Settings(share=0.5, every=2)},
    "dropout": {"dropout": dropout.Settings(rate=0.3)},
    "grow": {"grow": grow.Settings(share=0.4)},
    "all": {"grow": grow.Settings(share=0.4), "dropout": dropout.Settings(), "average": average.Settings()},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def made(tokens: Artifact, chosen: dict[str, Any], **more: Any) -> Any:
    run = training(tokens, optimizer="adamw", **more)
    run.techniques = (*techniques.make(chosen, run.model), *run.techniques)
    return run


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("optimizer", ["adamw", "normuon"])
def test_killed_and_resumed_is_the_same(tokens: Artifact, tmp_path: Path, name: str, optimizer: str) -> None:
    def run() -> Any:
        one = training(tokens, optimizer=optimizer)
        one.techniques = techniques.make(CHOSEN[name], one.model)
        return one

    torch.manual_seed(3)
    whole = run()
    train(whole, TrainingBench(tmp_path / "whole"))
    for kill_at in (7, 17):  # Before and after it grows.
        torch.manual_seed(3)
        with pytest.raises(Killed):
            train(run(), TrainingBench(tmp_path / str(kill_at), kill_at=kill_at))
        torch.manual_seed(99)
        resumed = run()
        train(resumed, TrainingBench(tmp_path / str(kill_at)))
        assert same(weights(whole), weights(resumed))
    assert resumed.model.depth is None and all(block.dropout == 0 for block in resumed.model.layers())


def test_the_average_is_the_mean_of_what_was_passed_through(tokens: Artifact, tmp_path: Path) -> None:
    class Seen(Technique):
        name = "seen"

        def __init__(self) -> None:
            self.heads: list[torch.Tensor] = []

        def after_step(self, moment: Moment) -> None:
            if moment.progress >= 0.5 and moment.step % 2 == 0:
                self.heads.append(moment.model.head.weight.detach().clone())

    seen = Seen()
    run = made(tokens, CHOSEN["average"], techniques=(seen,))
    train(run, TrainingBench(tmp_path))
    assert len(seen.heads) == 6
    torch.testing.assert_close(run.model.head.weight.detach(), torch.stack(seen.heads).mean(0))


def test_dropping_is_for_training_alone(tokens: Artifact, tmp_path: Path) -> None:
    run = made(tokens, CHOSEN["dropout"], steps=6)
    ids = torch.arange(16)[None]
    looks: list[torch.Tensor] = []

    def look() -> float:
        first, second = run.model(ids), run.model(ids)
        assert torch.equal(first, second)
        looks.append(first)
        return 1.0

    run.heldout = look
    train(run, TrainingBench(tmp_path))
    assert looks
    for block in run.model.layers():
        block.dropout = 0.5
    assert not torch.equal(run.model(ids), run.model(ids))


def test_kernels_drop_the_same(tokens: Artifact) -> None:
    kernels = Kernels.build()
    if kernels is None:
        pytest.skip("no C compiler")
    run = training(tokens)
    hold_gains(run.model)
    found = []
    for block in run.model.layers():
        block.dropout = 0.4
        for name, weight in block.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    batch = next(iter(run.sampler.take().parts))
    for hidden in (None, FusedHidden(run.model, kernels)):
        run.model.zero_grad(set_to_none=True)
        torch.manual_seed(5)
        loss = LanguageModelling(run.model, hidden)(batch, 1 / 128)
        loss.backward()
        grads = {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}
        found.append((loss.detach(), grads))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_growing_changes_nothing_at_the_moment_it_grows(tokens: Artifact, tmp_path: Path) -> None:
    run = made(tokens, CHOSEN["grow"])
    (technique,) = run.techniques
    train(run, TrainingBench(tmp_path, stop_at=None))
    lower, upper = run.model.layers()
    assert upper.ffn.down.weight.abs().sum() > 0
    ids = torch.arange(16)[None]
    run.model.depth = 1
    before = run.model(ids)
    technique._grow()
    run.model.depth = None
    torch.testing.assert_close(run.model(ids), before)
    assert torch.equal(upper.mixer.qkv.weight, lower.mixer.qkv.weight)


def test_growing_trains_the_first_layers_alone_at_first(tokens: Artifact, tmp_path: Path) -> None:
    run = made(tokens, CHOSEN["grow"], steps=10, flops_per_token=1000.0)
    start = [p.detach().clone() for p in run.model.layers()[1].parameters()]
    bench = TrainingBench(tmp_path)
    bench.stop_at = 3
    with pytest.raises(Exception, match="stopped at step 3"):
        train(run, bench)
    assert same(start, [p.detach() for p in run.model.layers()[1].parameters()])
    assert 0 < bench.flops < bench.tokens * 1000.0


def spec(**more: Any) -> ModelSpec:
    sizes = {"vocab_size": 61, "layers": 4, "width": 16, "heads": 2, "ffn_width": 32, "context": 16}
    return ModelSpec.of_family(more.pop("family", "kogata"), **{**sizes, **more})


@pytest.mark.parametrize(
    ("shape", "settings", "found"),
    [
        (spec(), grow.Settings(layers=4), "4 layers at first"),
        (spec(sharing={"times": 2}), grow.Settings(), "weights in common"),
        (spec(family="gemma3", ffn="geglu"), grow.Settings(), "gemma3"),
        (
            spec(mixers=("full", "gated_delta", "full", "full"), mixer_settings=({},) * 4),
            grow.Settings(),
            "mix otherwise",
        ),
    ],
)
def test_what_cannot_grow_is_refused(shape: ModelSpec, settings: grow.Settings, found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        techniques.check({"grow": settings}, shape, "train.pretrain")
    assert found in str(caught.value.found) and caught.value.where == "train.pretrain.techniques.grow"


def test_plans_count_them() -> None:
    shape = spec()
    assert techniques.cost_of(CHOSEN["grow"], shape) < 1 < techniques.cost_of(CHOSEN["dropout"], shape)
    assert techniques.held_by(CHOSEN["average"], shape) == 4 * shape.parameters()
    assert techniques.cost_of({}, shape) == 1 and techniques.held_by({}, shape) == 0
