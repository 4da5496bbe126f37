"""The loop: big batches in parts, kills and resumes, techniques, clocks, and what stops it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import DataError, KogataError, RecipeError, Stopped
from kogata.engine.loop import Outcome, Training, train
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import build_optimiser
from kogata.engine.sampler import Batch, StepBatch, WindowSampler
from kogata.engine.schedule import StepSchedule, TimeSchedule
from kogata.engine.supply import Supply
from kogata.engine.technique import Moment, Technique
from kogata.engine.tokens import TokenStore
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("one_thread")


def training(
    tokens: Artifact,
    *,
    steps: int = 24,
    micro: int = 8,
    optimizer: str = "muon",
    tables_every: int = 1,
    **more,
) -> Training:
    spec = ModelSpec.of_family(
        "qwen3", vocab_size=61, layers=2, width=16, heads=2, ffn_width=32, tied=False, context=16
    )
    decoder = Decoder(spec, seed=0)
    store = TokenStore.open(tokens.path)
    parts = {
        "model": decoder,
        "objective": LanguageModelling(decoder),
        "sampler": WindowSampler(store.ids, store.offsets, context=16, batch=8, micro=micro, seed=0),
        "optimiser": build_optimiser(decoder, optimizer, tables_every=tables_every),
        "schedule": StepSchedule(steps=steps, warmup=3),
        "checkpoint_steps": 5,
    }
    return Training(**{**parts, **more})


def supply_of(tokens: Artifact) -> Supply:
    store = TokenStore.open(tokens.path)
    return Supply(
        store=store, folder=tokens.path, facts=tokens.facts, context=16, batch=128, micro=128, seed=0
    )


def weights(run: Training) -> list[Tensor]:
    return [p.detach().clone() for p in run.model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_the_loss_falls(tokens: Artifact, tmp_path: Path) -> None:
    run, bench = training(tokens, steps=60), TrainingBench(tmp_path)
    outcome = train(run, bench)
    losses = [row["loss"] for row in bench.rows]
    assert losses[0] == pytest.approx(math.log(61), abs=0.3)
    assert outcome.loss is not None and outcome.loss < 0.6 * losses[0]
    assert outcome.steps == 60 and outcome.tokens == 60 * 128 == bench.tokens
    written = [json.loads(line) for line in outcome.metrics.read_text().splitlines()]
    assert written == bench.rows
    columns = {
        "stage",
        "step",
        "tokens",
        "seconds",
        "loss",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "gemm_share",
    }
    assert columns <= set(written[0])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_parts_of_a_batch_equal_the_whole(tokens: Artifact, tmp_path: Path, optimizer: str) -> None:
    found = []
    for name, micro in (("whole", 8), ("parts", 3)):
        run, bench = (
            training(tokens, steps=4, micro=micro, optimizer=optimizer),
            TrainingBench(tmp_path / name),
        )
        train(run, bench)
        found.append(
            (weights(run), [row["loss"] for row in bench.rows], [row["grad_norm"] for row in bench.rows])
        )
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_loss_counts_tokens_over_the_whole_step() -> None:
    """Parts with few counting tokens weigh as much as their tokens do."""
    spec = ModelSpec.of_family("llama", vocab_size=11, layers=1, width=8, heads=1, ffn_width=8, context=8)
    decoder = Decoder(spec, seed=0)
    objective = LanguageModelling(decoder)
    torch.manual_seed(0)
    ids, targets = torch.randint(0, 11, (2, 2, 8))
    mask = torch.zeros(2, 8)
    mask[0, 1], mask[1, 2:] = 1, 1
    count = float(mask.sum())
    total = torch.zeros(())
    for i in range(2):
        here = slice(i, i + 1)
        part = Batch(inputs=ids[here], targets=targets[here], weights=mask[here])
        total = total + objective(part, 1 / count)
    whole = objective(Batch(inputs=ids, targets=targets, weights=mask), 1 / count)
    torch.testing.assert_close(total, whole)


@pytest.mark.parametrize("kill_at", [1, 4, 5, 6, 13, 23])
def test_killed_and_resumed_is_bit_for_bit_the_same(tokens: Artifact, tmp_path: Path, kill_at: int) -> None:
    whole = training(tokens)
    undisturbed = train(whole, TrainingBench(tmp_path / "whole"))
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        train(training(tokens), TrainingBench(folder, kill_at=kill_at))
    torch.manual_seed(99)  # whatever the next process starts with
    resumed, bench = training(tokens), TrainingBench(folder)
    outcome = train(resumed, bench)
    assert same(weights(whole), weights(resumed))
    assert outcome.resumed == (kill_at // 5 * 5 if kill_at > 5 else None) or kill_at == 5
    rows = [json.loads(line) for line in outcome.metrics.read_text().splitlines()]
    expected = [json.loads(line) for line in undisturbed.metrics.read_text().splitlines()]
    for column in ("step", "tokens", "loss", "lr", "grad_norm"):
        assert [row[column] for row in rows] == [row[column] for row in expected], column
    assert outcome.loss == undisturbed.loss


def test_asked_to_stop_it_saves_and_goes_on(tokens: Artifact, tmp_path: Path) -> None:
    whole = training(tokens)
    train(whole, TrainingBench(tmp_path / "whole"))
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped, match="step 7"):
        train(training(tokens), TrainingBench(folder, stop_at=7))
    resumed, bench = training(tokens), TrainingBench(folder)
    assert train(resumed, bench).resumed == 7
    assert bench.rows[0]["step"] == 8 and same(weights(whole), weights(resumed))


def test_a_fake_clock_keeps_the_budget(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, seconds=60.0, tick=1.0)
    run = training(
        tokens, schedule=TimeSchedule(clock=bench.clock, reserve=2.0, warmup=3), checkpoint_steps=None
    )
    outcome = train(run, bench)
    left = bench.left()
    assert left is not None and 1.0 <= left <= 3.0
    assert 55 <= outcome.steps <= 59
    assert bench.rows[-1]["lr"] < 0.05 * max(row["lr"] for row in bench.rows)
    assert outcome.seconds == pytest.approx(58, abs=2)


def test_without_time_one_step_is_taken_all_the_same(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, seconds=1.0, tick=1.0)
    outcome = train(training(tokens, schedule=TimeSchedule(clock=bench.clock, reserve=2.0)), bench)
    assert outcome.steps == 1 and outcome.loss is not None


def test_a_batch_without_a_token_that_counts_stops_before_the_first_step(
    tokens: Artifact, tmp_path: Path
) -> None:
    class Empty(WindowSampler):
        def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
            return StepBatch(parts=[], count=0.0, tokens=128)

    store = TokenStore.open(tokens.path)
    run = training(tokens, sampler=Empty(store.ids, store.offsets, context=16, batch=8))
    before = weights(run)
    with pytest.raises(DataError, match="no token"):
        train(run, TrainingBench(tmp_path))
    assert same(before, weights(run))


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tokens: Artifact, tmp_path: Path) -> None:
    run = training(tokens)
    objective = run.objective

    def broken(batch: Batch, scale: float) -> Tensor:
        loss = objective(batch, scale)
        return loss * float("nan") if len(bench.rows) == 3 else loss

    run.objective = broken
    bench = TrainingBench(tmp_path)
    with pytest.raises(RecipeError, match="diverged: step 4") as caught:
        train(run, bench)
    assert isinstance(caught.value, KogataError) and "lr" in str(caught.value.remedy)


def test_techniques_act_at_their_points_and_are_resumed(tokens: Artifact, tmp_path: Path) -> None:
    class Average(Technique):
        """Keeps the mean of the head's weights and holds one row of the embedding."""

        name = "average"

        def __init__(self) -> None:
            self.calls: list[str] = []
            self.mean = torch.zeros(61, 16)

        def begin(self, moment: Moment) -> None:
            self.calls.append("begin")

        def before_forward(self, moment: Moment) -> None:
            self.calls.append("before")

        def gradients(self, moment: Moment) -> None:
            self.calls.append("gradients")
            assert moment.model.embed.weight.grad is not None
            moment.model.embed.weight.grad[5] = 0

        def after_step(self, moment: Moment) -> None:
            self.calls.append("after")
            self.mean.lerp_(moment.model.head.weight.detach(), 0.1)

        def end(self, moment: Moment) -> None:
            self.calls.append("end")

        def state(self) -> dict[str, Tensor]:
            return {"mean": self.mean}

        def load(self, state: dict[str, Tensor]) -> None:
            self.mean.copy_(state["mean"])

    whole = Average()
    run = training(tokens, techniques=[whole])
    row = run.model.embed.weight[5].detach().clone()
    train(run, TrainingBench(tmp_path / "whole"))
    assert torch.equal(run.model.embed.weight[5].detach(), row)
    assert whole.calls[:4] == ["begin", "before", "gradients", "after"] and whole.calls[-1] == "end"
    with pytest.raises(Killed):
        train(training(tokens, techniques=[Average()]), TrainingBench(tmp_path / "killed", kill_at=12))
    resumed = Average()
    train(training(tokens, techniques=[resumed]), TrainingBench(tmp_path / "killed"))
    assert torch.equal(resumed.mean, whole.mean)


def test_looking_at_heldout_text_changes_nothing(tokens: Artifact, tmp_path: Path) -> None:
    plain = training(tokens)
    train(plain, TrainingBench(tmp_path / "plain"))
    looks: list[int] = []
    watched = training(tokens, heldout=lambda: looks.append(1) or 1.5)
    bench = TrainingBench(tmp_path / "watched")
    train(watched, bench)
    assert same(weights(plain), weights(watched))
    assert 6 <= len(looks) <= 9
    assert sum("heldout_bits_per_byte" in row for row in bench.rows) == len(looks)


def test_clipping_bounds_the_gradient(tokens: Artifact, tmp_path: Path) -> None:
    class Watch(Technique):
        norms: list[float] = []

        def after_step(self, moment: Moment) -> None:
            grads = [p.grad for p in moment.optimiser.parameters() if p.grad is not None]
            self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

    run = training(tokens, steps=3, clip=1e-3, techniques=[Watch()])
    outcome: Outcome = train(run, TrainingBench(tmp_path))
    assert outcome.steps == 3 and max(Watch.norms) <= 1.001e-3
