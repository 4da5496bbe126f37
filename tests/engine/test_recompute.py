"""Blocks computed again in the backward pass give the same gradients; products in 16 bits nearly so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_bench import MACHINE, NOVELS, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine.costs import activation_bytes, step_cost
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import hold_gains
from kogata.engine.sampler import Batch
from kogata.nn.decoder import Decoder
from kogata.nn.fused import FusedHidden
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain

WINDOWS = {"mixers": ("window", "full", "short_conv"), "mixer_settings": ({"size": 8}, {}, {})}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "mixed": WINDOWS,
    "added": {"additions": {"scales": True, "values": True, "ngrams": 64}},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def decoder(case: str) -> Decoder:
    sizes = {"vocab_size": 61, "layers": 3, "width": 32, "heads": 2, "ffn_width": 48, "context": 24}
    made = Decoder(ModelSpec.of_family("kogata", **sizes, tied=False, **CASES[case]), seed=1)
    hold_gains(made)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return made


def batch() -> Batch:
    ids = torch.randint(0, 61, (2, 25), generator=torch.Generator().manual_seed(4))
    return Batch(inputs=ids[:, :-1], targets=ids[:, 1:])


def gradients(made: Decoder, objective: LanguageModelling) -> tuple[float, dict[str, torch.Tensor]]:
    made.zero_grad(set_to_none=True)
    torch.manual_seed(8)
    loss = objective(batch(), 1 / 48)
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("drops", [0.0, 0.3])
def test_computed_again_the_gradients_are_the_same(case: str, drops: float) -> None:
    made, kernels = decoder(case), Kernels.build()
    for block in made.layers():
        block.dropout = drops
    ways: list[Any] = [None] if kernels is None else [None, FusedHidden(made, kernels)]
    for hidden in ways:
        objective = LanguageModelling(made, hidden)
        made.recompute = False
        kept = gradients(made, objective)
        made.recompute = True
        torch.testing.assert_close(gradients(made, objective), kept, rtol=1e-5, atol=1e-6)


def test_less_is_kept() -> None:
    made = decoder("full")
    kept: list[int] = []
    for again in (False, True):
        made.recompute = again
        held: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, held=held: held.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            made.hidden(batch().inputs)
        kept.append(sum(held))
    assert kept[1] < kept[0] / 3
    shape = ModelSpec.of_family("qwen3", vocab_size=4096, layers=8, width=256, heads=4, ffn_width=704)
    assert activation_bytes(shape, 4096, recompute=True) < activation_bytes(shape, 4096) / 3
    sizes = {"batch": 4096, "context": 4096}
    usual = step_cost(shape, MACHINE, **sizes).seconds
    assert usual < step_cost(shape, MACHINE, **sizes, recompute=True).seconds < 1.34 * usual


def test_products_in_bfloat16_are_near() -> None:
    made = decoder("full")
    objective = LanguageModelling(made)
    loss, grads = gradients(made, objective)
    objective.narrow = True
    narrow, others = gradients(made, objective)
    assert narrow == pytest.approx(loss, rel=0.02) and narrow != loss
    for name, grad in grads.items():
        assert others[name].dtype == torch.float32
        assert float((others[name] - grad).norm() / grad.norm()) < 0.1, name


def resolved(machine: Machine = MACHINE, memory: int | None = None, **settings: Any) -> Any:
    facts = {"tokens": NOVELS, "model": None}
    return Pretrain(**{"steps": 5, **settings}).resolve(facts, machine, Share(memory_bytes=memory))


def test_a_plan_takes_it_where_memory_asks_for_it() -> None:
    model = {"layers": 8, "width": 512}
    sizes: dict[str, Any] = {"model": model, "context": 16_384, "batch": 16_384}
    assert resolved(**sizes).stage.recompute is False
    small = resolved(memory=3 * 2**30, **sizes)
    assert small.stage.recompute is True and "a third more" in small.reasons["recompute"]
    facts = {"tokens": NOVELS, "model": None}
    cost = small.stage.forecast(facts, MACHINE, Share(memory_bytes=3 * 2**30)).cost
    assert cost.peak_bytes <= 3 * 2**30
    kept = small.stage.model_copy(update={"recompute": False})
    assert cost.seconds > kept.forecast(facts, MACHINE, Share(memory_bytes=3 * 2**30)).cost.seconds


def test_what_cannot_be_computed_again_is_refused() -> None:
    model = {"family": "kogata", "layers": 2, "width": 64, "ffn": "experts"}
    with pytest.raises(RecipeError, match="computed again"):
        resolved(model=model, recompute=True)


def test_training_with_it_is_the_same_training(tokens: Artifact, tmp_path: Path) -> None:
    found = []
    for again in (False, True):
        bench = TrainingBench(tmp_path / str(again))
        stage = Pretrain(
            model={"layers": 2, "width": 16, "heads": 2, "ffn_width": 32}, context=16, batch=128, steps=4,
            recompute=again, techniques={"dropout": {"rate": 0.2}},
        ).resolve({"tokens": tokens.facts, "model": None}, MACHINE, Share()).stage  # fmt: skip
        torch.manual_seed(int(again))  # What was drawn before is no matter: the stage's seed decides.
        facts = stage.run({"tokens": tokens, "model": None}, bench)
        assert facts["training"]["techniques"] == {"dropout": {"rate": 0.2}}
        found.append([row["loss"] for row in bench.rows])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
