"""Sparse fine-tuning: the right weights are chosen, their gradients are right, nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import random_decoder, small_spec

from kogata.core.errors import RecipeError
from kogata.engine.finetune import sparse
from kogata.engine.finetune._common import targets
from kogata.nn.adapters.columns import Columns
from kogata.nn.adapters.scattered import Scattered
from kogata.nn.held import Bfloat16, HeldLinear
from kogata.nn.linear import linear

IDS = torch.arange(2, 26)[None]
SPEC = small_spec("llama", layers=2)


def plain_gradients() -> dict[str, torch.Tensor]:
    decoder = random_decoder(SPEC)
    decoder(IDS).square().mean().backward()
    found = {}
    for target in targets(decoder):
        for peer, (start, stop) in target.pieces.items():
            found[peer] = target.module.weight.grad[start:stop]
    return found


def test_the_largest_gradients_are_chosen_and_kept(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    wanted = plain_gradients()
    settings = sparse.Settings(form="scattered", rank=2)
    decoder = random_decoder(SPEC)
    tuning = sparse.apply(decoder, settings, 0)
    assert tuning.begin is not None
    passes: list[int] = []

    def run(count: int) -> None:
        passes.append(count)
        for _ in range(count):
            decoder(IDS).square().mean().backward()

    tuning.begin(run, tmp_path / "chosen.npy")
    assert all(value.grad is None for _, value in tuning.named())
    decoder(IDS).square().mean().backward()
    for target in targets(decoder):
        module: Any = target.module
        chosen = torch.zeros(module.out_features * module.in_features)
        chosen[module.places.long()] = module.values.grad
        chosen = chosen.view(module.out_features, -1)
        for peer, (start, stop) in target.pieces.items():
            grad, own = wanted[peer], chosen[start:stop]
            count = 2 * sum(grad.shape)
            least = grad.abs().flatten().topk(count).values[-1]
            assert torch.allclose(own, torch.where(grad.abs() >= least, grad, 0.0), atol=1e-6), peer
    again = sparse.apply(random_decoder(SPEC), settings, 0)
    assert again.begin is not None
    again.begin(run, tmp_path / "chosen.npy")
    assert passes == [sparse.PASSES], "a resumed run takes what was chosen"
    kept = np.load(tmp_path / "chosen.npy")
    assert len(kept) == sparse.work(SPEC, settings).trained == sum(v.numel() for _, v in tuning.named())


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("form", ["blocks", "scattered"])
def test_gradients_are_those_of_the_changed_weight(form: str, held: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    base: Any = linear(6, 5, bias=True)
    with torch.no_grad():
        for weight in base.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator).bfloat16())
    whole = base.weight.detach().clone().requires_grad_()
    if held:
        base = HeldLinear(Bfloat16(base.weight), base.bias, 6, 5)
    columns = torch.tensor([1, 4])
    module: Any
    if form == "blocks":
        module, trained = Columns(base, columns), "change"
    else:
        module, trained = Scattered(base, 3), "values"
        module.places.copy_(torch.tensor([2, 13, 29]))
    value = getattr(module, trained)
    x, y = torch.randn(2, 7, 6, generator=generator).requires_grad_(), None
    for _ in range(2):
        with torch.no_grad():
            value.add_(torch.randn(value.shape, generator=generator))
            whole.copy_(module.merged())
        value.grad = x.grad = whole.grad = None
        y = module(x)
        y.square().sum().backward()
        gx, gv = x.grad, value.grad
        x.grad = None
        z = torch.nn.functional.linear(x, whole, base.bias)
        z.square().sum().backward()
        assert torch.allclose(y, z, atol=1e-5) and gx is not None and gv is not None
        assert whole.grad is not None and x.grad is not None
        assert torch.allclose(gx, x.grad, rtol=1e-4, atol=1e-4)
        wanted = whole.grad[:, columns] if form == "blocks" else whole.grad.flatten()[[2, 13, 29]]
        assert torch.allclose(gv, wanted, rtol=1e-4, atol=1e-4)


def test_blocks_are_whole_heads_and_differ_by_layer() -> None:
    settings = sparse.Settings(rank=8)
    decoder = random_decoder(small_spec("llama", layers=3, heads=8, kv_heads=2))
    tuning = sparse.apply(decoder, settings, 3)
    assert sum(v.numel() for _, v in tuning.named()) == sparse.work(decoder.spec, settings).trained
    heads = [block.mixer.out.columns for block in decoder.layers()]
    for columns in heads:
        assert len(columns) == 16 and (columns.view(-1, 8) // 8 == columns.view(-1, 8)[:, :1] // 8).all()
    channels = [tuple(block.ffn.down.columns.tolist()) for block in decoder.layers()]
    assert len(set(channels)) == 3


@pytest.mark.parametrize("form", ["blocks", "scattered"])
def test_more_than_there_is(form: Any) -> None:
    with pytest.raises(RecipeError, match="more weights"):
        sparse.work(SPEC, sparse.Settings(form=form, rank=64))


def test_forecasts_know_what_choosing_takes() -> None:
    from kogata.core.receipt import Machine
    from kogata.engine import finetune_costs as costs

    machine = Machine(cores=2, gemm_flops=1e11, gemm_small_flops=8e10, compiler=True)
    rows = costs.Rowful(rows=100, tokens=100.0, trained=50.0, longest=200)
    blocks, scattered = (
        sparse.work(SPEC, sparse.Settings(form=form, rank=4)) for form in ("blocks", "scattered")
    )
    assert costs.held_bytes(SPEC, scattered) > costs.held_bytes(SPEC, blocks) + 4 * SPEC.matrix_parameters()
    seconds = [
        costs.step_seconds(SPEC, one, rows, machine, batch=8, micro=1024) for one in (blocks, scattered)
    ]
    assert seconds[0] < seconds[1] and (blocks.steps_before, scattered.steps_before) == (0, sparse.PASSES)
