"""Curriculum and sampling in training: the default is as it was, kills change nothing, weights are right."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampling_bench import make_supply
from training_bench import MACHINE, Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine.objectives import LanguageModelling
from kogata.engine.sampler import Batch, RampSampler, WindowSampler
from kogata.engine.sampling import make_sampler
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain

TINY = {"model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}, "batch": 256, "corpus_start": False}


pytestmark = pytest.mark.usefixtures("one_thread")


def run(tokens: Artifact, bench: TrainingBench, **settings: Any) -> dict[str, Any]:
    stage = Pretrain(**{**TINY, "context": 16, **settings})
    facts = {"tokens": tokens.facts, "model": None}
    made = stage.resolve(facts, MACHINE, bench.share).stage
    return made.run({"tokens": tokens, "model": None}, bench)


def digest_of(sampler: Any, steps: int) -> str:
    total = hashlib.sha256()
    for step in range(steps):
        for part in sampler.take(0, 1, step / steps).parts:
            assert part.weights is part.losses is part.weigh is None
            total.update(part.inputs.numpy().tobytes() + part.targets.numpy().tobytes())
    return total.hexdigest()


def test_without_curriculum_training_sees_what_it_always_saw() -> None:
    """A default run must repeat the numbers of releases that knew no curriculum."""
    supply = make_supply(context=128, batch=512, micro=256, seed=3)
    whole = [
        WindowSampler(
            supply.store.ids, supply.store.offsets, context=c, batch=512 // c, micro=256 // c, seed=21 + i
        )
        for i, c in enumerate((64, 128))
    ]
    found = digest_of(make_sampler(supply), 40)
    assert found == digest_of(RampSampler(whole, [0.5]), 40)
    assert found[:16] == "9ab2ba0fc6932f87"


def test_default_settings_are_the_plain_ones_and_add_no_columns(tokens: Artifact, tmp_path: Path) -> None:
    plain, named = TrainingBench(tmp_path / "plain"), TrainingBench(tmp_path / "named")
    facts = run(tokens, plain, context=128, steps=8)
    again = run(tokens, named, context=128, steps=8, curriculum="half_length", sampling="proportional")
    assert facts == again and plain.rows[0].keys().isdisjoint({"context", "mixture", "difficulty", "pruned"})
    for name in ("model.safetensors", "metrics.jsonl", "training.json"):
        assert (plain.out / name).read_bytes() == (named.out / name).read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"curriculum": {"easy_first": {"by": "rarity"}}, "sampling": "loss", "context": 128},
        {"curriculum": {"length_buckets": {"shortest": 8}}},
        {"sampling": {"infobatch": {"last": 0.3}}, "steps": 36},
    ],
    ids=["easy_first and loss", "length_buckets", "infobatch"],
)
def test_killed_and_resumed_is_the_same_bit_for_bit(
    settings: dict[str, Any], tokens: Artifact, tmp_path: Path
) -> None:
    settings = {"steps": 16, "checkpoint_every": 5, **settings}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(tokens, whole, **settings)
    with pytest.raises(Killed):
        run(tokens, TrainingBench(tmp_path / "killed", kill_at=settings["steps"] - 3), **settings)
    again = TrainingBench(tmp_path / "killed")
    assert run(tokens, again, **settings) == facts
    for name in ("model.safetensors", "metrics.jsonl", "training.json"):
        assert (whole.out / name).read_bytes() == (again.out / name).read_bytes(), name


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "kernels"])
def test_rows_are_weighed_by_their_own_plain_losses(compiled: bool) -> None:
    """Gradients are those of the same weights given beforehand; what is told are the plain losses."""
    kernels = Kernels.build() if compiled else None
    if compiled and kernels is None:
        pytest.skip("no compiler")
    spec = ModelSpec.of_family("qwen3", vocab_size=61, layers=1, width=16, heads=2, ffn_width=32, context=8)
    decoder = Decoder(spec, seed=0)
    objective = LanguageModelling(decoder, kernels=kernels)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 61, (5, 9)))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    with torch.no_grad():
        logits = decoder.logits(decoder.hidden(inputs))
    plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")

    def weigh(losses: torch.Tensor) -> torch.Tensor:
        return torch.where(losses > plain.mean(), 2.0, 0.0)  # rows that count for nothing are among them

    def gradient(batch: Batch) -> torch.Tensor:
        decoder.zero_grad()
        objective(batch, 1 / 40).backward()
        return torch.cat([p.grad.flatten() for p in decoder.parameters() if p.grad is not None])

    room = torch.empty(targets.shape)
    found = gradient(Batch(inputs=inputs, targets=targets, losses=room, weigh=weigh))
    assert torch.allclose(room, plain, atol=1e-5)
    weights = weigh(plain.mean(1))
    assert set(weights.tolist()) == {0.0, 2.0}
    given = torch.empty(targets.shape)
    known = Batch(inputs=inputs, targets=targets, weights=weights[:, None].repeat(1, 8), losses=given)
    assert torch.allclose(found, gradient(known), atol=1e-6)
    counted = weights > 0
    assert torch.allclose(given[counted], plain[counted], atol=1e-5)


def test_a_pair_that_cannot_be_is_refused_before_anything_runs(tokens: Artifact) -> None:
    facts = {"tokens": tokens.facts, "model": None}
    with pytest.raises(RecipeError, match="two settings") as caught:
        Pretrain(curriculum="easy_first", sampling="bandit").resolve(facts, MACHINE, Share())  # type: ignore[arg-type]
    assert "full_length or half_length or length_warmup" in (caught.value.expected or "")
    made = Pretrain(sampling="infobatch").resolve(facts, MACHINE, Share()).stage  # type: ignore[arg-type]
    assert made.curriculum.name == "full_length"  # type: ignore[attr-defined]


def test_a_column_that_the_tokens_lack_is_refused_before_anything_runs(tokens: Artifact) -> None:
    stage = Pretrain(curriculum={"easy_first": {"by": {"column": {"name": "学年"}}}})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="no column '学年'") as caught:
        stage.resolve({"tokens": {**tokens.facts, "columns": ["grade"]}, "model": None}, MACHINE, Share())
    assert "numbers: [学年]" in (caught.value.remedy or "")
    stage.resolve({"tokens": {**tokens.facts, "columns": ["学年"]}, "model": None}, MACHINE, Share())
