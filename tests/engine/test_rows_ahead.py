"""Rows of several steps go through frozen layers together: the same losses, also after a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kogata.core.receipt import Machine
from kogata.engine.finetune._common import Work
from kogata.engine.finetune_costs import Rowful, step_seconds
from kogata.engine.frozen import KeptOutputs
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import PackedBatch, Rows, RowSampler
from kogata.nn.decoder import Decoder
from kogata.nn.packed import PackedHidden
from kogata.nn.spec import ModelSpec

SPEC = ModelSpec.of_family(
    "llama", vocab_size=60, layers=3, width=32, heads=4, kv_heads=2, ffn_width=48, context=64
)
FIRST, STEPS = 2, 9


def rows() -> Rows:
    chance = np.random.default_rng(0)
    made = []
    for _ in range(13):
        own = chance.integers(1, 60, int(chance.integers(5, 12))).tolist()
        made.append(([*range(20, 32), *own], [0.0] * 14 + [1.0] * (len(own) - 2)))
    return Rows(made)


def losses(place: Path | None, ahead: bool, start: int = 0) -> list[float]:
    some = rows()
    sampler = RowSampler(some, batch=2, micro=200, seed=5)
    if ahead:
        sampler.look_ahead()
        assert sampler.ahead > 2
    sampler.load({"taken": 2 * start})
    packed = PackedHidden(Decoder(SPEC, seed=1), None)
    kept = None if place is None else KeptOutputs(place, some, SPEC.width, half=False)
    objective = TrainedTokens(packed, FIRST, kept)
    found = []
    for _ in range(STEPS - start):
        step = sampler.take()
        found.append(sum(float(objective(part, 1 / step.count).detach()) for part in step.parts))
    return found


@pytest.mark.parametrize("keeps", [False, True])
def test_losses_are_those_of_one_step_after_another(keeps: bool, tmp_path: Path) -> None:
    one, many = (losses(tmp_path / f"{ahead}.bin" if keeps else None, ahead) for ahead in (False, True))
    assert many == pytest.approx(one, rel=1e-5)
    assert len(set(one)) == STEPS


@pytest.mark.parametrize("start", [1, 2, 4, 8])
def test_a_run_resumed_within_a_block_computes_the_same_bits(start: int, tmp_path: Path) -> None:
    whole = losses(tmp_path / "kept.bin", True)
    assert losses(tmp_path / "kept.bin", True, start) == whole[start:]
    assert losses(None, True, start) == losses(None, True)[start:]


def test_large_steps_go_by_themselves() -> None:
    sampler = RowSampler(rows(), batch=8, micro=64, seed=5)
    sampler.look_ahead()
    assert sampler.ahead == 1
    step = sampler.take()
    assert all(isinstance(part, PackedBatch) and part.block is None for part in step.parts)


def test_frozen_layers_run_once_a_block() -> None:
    sampler = RowSampler(rows(), batch=2, micro=200, seed=5)
    sampler.look_ahead()
    packed = PackedHidden(Decoder(SPEC, seed=1), None)
    objective, calls = TrainedTokens(packed, FIRST), []
    frozen = objective._frozen
    objective._frozen = lambda *some: calls.append(1) or frozen(*some)  # type: ignore[method-assign]
    with torch.no_grad():
        for _ in range(sampler.ahead):
            for part in sampler.take().parts:
                objective(part, 1.0)
    assert len(calls) == 1


def test_each_block_is_computed_by_its_own_rows() -> None:
    sampler = RowSampler(rows(), batch=2, micro=200, seed=5)
    sampler.look_ahead()
    size = sampler.ahead
    assert 2 * size > len(sampler.rows), "a block has every row, so the next one has none that is new"
    packed = PackedHidden(Decoder(SPEC, seed=1), None)
    objective, laid = TrainedTokens(packed, FIRST), []
    frozen = objective._frozen
    objective._frozen = lambda *some: laid.append(some[0].tolist()) or frozen(*some)  # type: ignore[method-assign]

    def go(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                for part in sampler.take().parts:
                    objective(part, 1.0)

    go(2 * size)
    assert len(laid) == 2
    whole, objective = laid.pop(), TrainedTokens(packed, FIRST)
    objective._frozen = lambda *some: laid.append(some[0].tolist()) or frozen(*some)  # type: ignore[method-assign]
    sampler.load({"taken": 2 * (size + 1)})
    go(1)
    assert laid[1:] == [whole], "resumed within the second block, the same rows lie there in the same order"


def test_a_model_in_other_modules_is_not_forecast_to_look_ahead() -> None:
    machine = Machine(device="cpu", cores=2, gemm_flops=1e11, stream_bytes=1e10)
    sizes = Rowful(rows=100, tokens=58.0, trained=20.0, longest=90)
    ours, theirs = (
        step_seconds(
            SPEC, Work(trained=100, first=FIRST, foreign=foreign), sizes, machine, batch=2, micro=1024
        )
        for foreign in (False, True)
    )
    assert ours < theirs
