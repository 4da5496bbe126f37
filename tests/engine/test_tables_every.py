"""A head that rests between its updates: what is computed, counted, clipped, sent and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_bench import MACHINE, Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.engine.costs import head_gradient_flops, head_updates, step_cost
from kogata.engine.loop import train
from kogata.engine.parallel import Group
from kogata.engine.technique import Moment, Technique
from kogata.nn.spec import ModelSpec
from tests.engine.test_loop import same, training, weights

pytestmark = pytest.mark.usefixtures("one_thread")


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "mm" in func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))


class Watch(Technique):
    """Notes of each step the products made, which gradients stand, their length, and the head."""

    def __init__(self, products: Products) -> None:
        self.products, self.before = products, 0
        self.counts: list[int] = []
        self.headless: list[bool] = []
        self.norms: list[float] = []
        self.heads: list[Tensor] = []

    def before_forward(self, moment: Moment) -> None:
        self.before = self.products.count
        self.heads.append(moment.model.head.weight.detach().clone())

    def gradients(self, moment: Moment) -> None:
        self.counts.append(self.products.count - self.before)
        grads = [p.grad for p in moment.model.parameters() if p.grad is not None]
        self.headless.append(moment.model.head.weight.grad is None)
        self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))


class Sent(Group):
    """Notes how many gradients would be added over processes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def sum_gradients(self, parameters: Sequence[Tensor], extra: Sequence[float]) -> list[float]:
        self.sizes.append(len(parameters))
        return super().sum_gradients(parameters, extra)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resting_head_costs_no_product_and_does_not_move(
    tokens: Artifact, tmp_path: Path, optimizer: str
) -> None:
    products, group = Products(), Sent()
    watch, bench = Watch(products), TrainingBench(tmp_path)
    run = training(
        tokens, steps=6, micro=4, optimizer=optimizer, tables_every=4, techniques=[watch], group=group,
        clip=0.05, flops_per_token=1000.0, resting_flops=300.0,
    )  # fmt: skip
    with products:
        train(run, bench)
    due = [True, False, False, False, True, False]
    assert watch.headless == [not d for d in due]
    whole, rest = watch.counts[0], watch.counts[1]
    assert whole == rest + 2, "one product for each of two parts"
    assert watch.counts == [whole if d else rest for d in due]
    heads = [*watch.heads, run.model.head.weight]
    assert [not torch.equal(a, b) for a, b in zip(heads, heads[1:], strict=False)] == due
    every = len(run.optimiser.parameters())
    assert group.sizes == [every if d else every - 1 for d in due]
    # Clipping and the metrics' length are of what stands: the head's gradient where there is one.
    assert [row["grad_norm"] for row in bench.rows] == pytest.approx(watch.norms, rel=1e-4)
    assert bench.flops == 128 * sum(1000.0 if d else 700.0 for d in due)
    assert run.model.head.weight.requires_grad


def test_the_share_of_the_machine_counts_what_was_computed(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, tick=0.001)
    train(training(tokens, steps=3, tables_every=2, flops_per_token=9e6, resting_flops=4e6), bench)
    found = [row["gemm_share"] * 80e9 / row["tokens_per_second"] for row in bench.rows if row["gemm_share"]]
    assert found == pytest.approx([5e6, 9e6], rel=1e-3)  # The first step took no time by this clock.


def test_in_every_step_it_is_plain_adamw_to_the_last_bit(tokens: Artifact, tmp_path: Path) -> None:
    run = training(tokens, steps=5, optimizer="adamw", tables_every=1, clip=0.05)
    plain = training(tokens, steps=5, optimizer="adamw")
    groups = [
        {"params": [p for _, p in group.named], "lr": group.lr, "base": group.lr}
        for group in plain.optimiser.parts["adamw"].groups
    ]
    peer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-10, weight_decay=0.0, fused=True)
    for step in range(5):
        factor, progress = plain.schedule.next(step)
        batch = plain.sampler.take(0, 1, progress)
        for part in batch.parts:
            plain.objective(part, 1.0 / batch.count).backward()
        grads = [p.grad for p in plain.optimiser.parameters()]
        norm = float(torch.stack([g.norm() for g in grads]).norm())
        if norm > 0.05:
            torch._foreach_mul_(grads, 0.05 / norm)
        for group in peer.param_groups:
            group["lr"] = group["base"] * factor
        peer.step()
        peer.zero_grad()
    train(run, TrainingBench(tmp_path))
    assert same(weights(run), weights(plain))


def test_killed_while_the_head_rests_it_goes_on_to_the_same_bits(tokens: Artifact, tmp_path: Path) -> None:
    whole, killed, resumed = (training(tokens, steps=9, optimizer="adamw", tables_every=4) for _ in range(3))
    train(whole, TrainingBench(tmp_path / "whole"))
    with pytest.raises(Killed):
        train(killed, TrainingBench(tmp_path / "killed", kill_at=6))
    train(resumed, TrainingBench(tmp_path / "killed"))
    assert same(weights(whole), weights(resumed))


def test_parts_of_a_batch_add_up(tokens: Artifact, tmp_path: Path) -> None:
    found = []
    for micro in (8, 3):
        run = training(tokens, steps=5, micro=micro, optimizer="adamw", tables_every=2)
        train(run, TrainingBench(tmp_path / str(micro)))
        found.append(weights(run))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("narrow", [None, 64])
def test_forecast_of_a_step(narrow: int | None) -> None:
    spec = ModelSpec.of_family(
        "kogata" if narrow else "qwen3", vocab_size=8192, layers=3, width=128, heads=2, ffn_width=352,
        tied=False, embed_width=narrow,
    )  # fmt: skip
    full, seldom = (
        step_cost(spec, MACHINE, batch=1024, context=256, muon=False, updates=head_updates(every, None))
        for every in (1, 4)
    )
    assert head_gradient_flops(spec) == 2 * 8192 * (narrow or 128)
    assert full.flops - seldom.flops == 0.75 * 1024 * head_gradient_flops(spec)
    assert 0.5 * full.seconds < seldom.seconds < 0.95 * full.seconds
    assert [head_updates(4, steps) for steps in (1, 4, 5, None)] == [1, 0.25, 0.4, 0.25]
