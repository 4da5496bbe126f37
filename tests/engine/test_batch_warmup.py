"""Steps that grow: the same text in the same order, whatever their sizes; kills, processes, plans, clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from training_bench import MACHINE, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.core.variants import Choice
from kogata.engine import techniques
from kogata.engine.phases import steps_of
from kogata.engine.sampler import RampSampler, WindowSampler
from kogata.engine.techniques import batch_warmup
from kogata.engine.techniques.batch_warmup import BatchWarmup, Settings
from kogata.stages.train.pretrain import Pretrain
from tests.engine.test_parallel import run as processes

TINY = {"model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}, "context": 16, "batch": 64}
GROWS = {"times": [0.5, 1, 2], "ends": [0.25, 0.5]}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tokens(tmp_path_factory.mktemp("tokens"))


def stage_of(text: Artifact, share: Share | None = None, **settings: Any) -> Pretrain:
    facts = {"tokens": text.facts, "model": None}
    return Pretrain(**{**TINY, **settings}).resolve(facts, MACHINE, share or Share()).stage


def run(text: Artifact, bench: TrainingBench, **settings: Any) -> dict[str, Any]:
    return stage_of(text, bench.share, **settings).run({"tokens": text, "model": None}, bench)


def weights(bench: TrainingBench) -> bytes:
    return (bench.out / "model.safetensors").read_bytes()


def test_the_text_comes_in_the_order_it_would() -> None:
    ids = np.arange(400, dtype=np.uint16)
    offsets = np.array([0, 90, 200, 400])

    def make() -> WindowSampler:
        return WindowSampler(ids, offsets, context=8, batch=4, micro=2, seed=5)

    plain, grown = make(), make()
    seen: list[list[int]] = []
    for times in (0.5, 0.5, 1.0, 2.0, 2.0, 1.5):
        grown.resize(times)
        batch = grown.take()
        assert batch.tokens == batch.count == int(4 * times) * 8
        rows = [row for part in batch.parts for row in part.targets.tolist()]
        assert all(len(part.targets) <= 2 for part in make().take().parts)
        # Every process takes its part of the larger step.
        assert len(rows) == int(4 * times)
        seen += rows
    expected = [row for _ in range(8) for part in plain.take().parts for row in part.targets.tolist()]
    assert seen == expected[: len(seen)]
    inside = [token for row in seen for token in row][: grown.windows * 8]
    assert len(set(inside)) == len(inside)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_part_each_step(world: int) -> None:
    ids, offsets = np.arange(400, dtype=np.uint16), np.array([0, 400])
    whole = WindowSampler(ids, offsets, context=8, batch=4, seed=5)
    for times in (0.25, 1.0, 2.0):
        parts: list[list[int]] = []
        for rank in range(world):
            one = WindowSampler(ids, offsets, context=8, batch=4, seed=5)
            one.load(whole.state())
            one.resize(times)
            parts += [row for part in one.take(rank, world).parts for row in part.targets.tolist()]
        whole.resize(times)
        assert parts == [row for part in whole.take().parts for row in part.targets.tolist()]


def test_lengths_of_windows_grow_beside_it() -> None:
    ids, offsets = np.arange(400, dtype=np.uint16), np.array([0, 400])
    short = WindowSampler(ids, offsets, context=4, batch=8, seed=1)
    ramp = RampSampler([short, WindowSampler(ids, offsets, context=8, batch=4, seed=2)], [0.5])
    found = []
    for progress, times in ((0.0, 0.5), (0.4, 1.0), (0.6, 2.0)):
        ramp.resize(times)
        found.append(ramp.take(progress=progress).tokens)
    assert found == [16, 32, 64]


def test_one_size_is_the_plain_training(tokens: Artifact, tmp_path: Path) -> None:
    benches = [TrainingBench(tmp_path / name) for name in ("plain", "one")]
    run(tokens, benches[0], steps=8)
    run(tokens, benches[1], steps=8, techniques={"batch_warmup": {"times": [1], "ends": []}})
    assert weights(benches[0]) == weights(benches[1])
    assert [row["loss"] for row in benches[0].rows] == [row["loss"] for row in benches[1].rows]


def test_sizes_rates_and_what_the_plan_says(tokens: Artifact, tmp_path: Path) -> None:
    settings = {"steps": 12, "warmup": 0, "decay": 0, "lr": 0.002, "techniques": {"batch_warmup": GROWS}}
    bench = TrainingBench(tmp_path / "grown")
    facts = run(tokens, bench, **settings)
    seen = np.diff([0, *(row["tokens"] for row in bench.rows)]).tolist()
    assert seen == [32] * 3 + [64] * 3 + [128] * 6
    rates = [row["lr"] for row in bench.rows]
    assert rates[0] == pytest.approx(rates[3] * 0.5**0.5) and rates[-1] == pytest.approx(rates[3] * 2**0.5)
    assert facts["training"]["batch_starts"] == [0, 3, 6]
    stage = stage_of(tokens, **settings)
    cost = stage.forecast({"tokens": tokens.facts, "model": None}, MACHINE, Share()).cost
    assert cost.tokens == bench.tokens == sum(seen) and cost.flops == pytest.approx(bench.flops)
    plain = stage_of(tokens, **{**settings, "techniques": None})
    costs = plain.forecast({"tokens": tokens.facts, "model": None}, MACHINE, Share()).cost
    assert cost.peak_bytes > costs.peak_bytes and cost.seconds > costs.seconds
    held = TrainingBench(tmp_path / "held")
    run(tokens, held, **{**settings, "techniques": {"batch_warmup": {**GROWS, "lr": "hold"}}})
    assert len({row["lr"] for row in held.rows}) == 1 and weights(held) != weights(bench)


@pytest.mark.parametrize(("length", "wanted"), [({"epochs": 3}, 3 * 3600), ({"tokens": 5000}, 5000)])
def test_a_length_in_text_is_kept(tokens: Artifact, tmp_path: Path, length: dict, wanted: int) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(tokens, bench, **length, techniques={"batch_warmup": GROWS})
    assert facts["training"]["tokens"] == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("kill_at", [2, 7, 11])
def test_killed_and_resumed_is_the_same(tokens: Artifact, tmp_path: Path, kill_at: int) -> None:
    settings = {"steps": 12, "checkpoint_every": 2, "techniques": {"batch_warmup": GROWS}}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(tokens, whole, **settings)
    with pytest.raises(Killed):
        run(tokens, TrainingBench(tmp_path / "killed", kill_at=kill_at), **settings)
    again = TrainingBench(tmp_path / "killed")
    assert run(tokens, again, **settings) == facts
    assert weights(again) == weights(whole)
    name = "metrics.jsonl"
    assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    def made(folder: Path, world: int) -> list[dict[str, torch.Tensor]]:
        return processes(folder, world, "adamw", {"batch_warmup": GROWS})

    (one,) = made(tmp_path, 1)
    first, second = made(tmp_path, 2)
    losses = first.pop("losses")
    second.pop("losses")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(losses, one.pop("losses"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first, one, rtol=2e-3, atol=2e-4)


def test_under_a_clock_it_replays_by_its_steps(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path / "clock", seconds=40.0, tick=1.0)
    settings = {"techniques": {"batch_warmup": GROWS}, "decay": 0.0, "curriculum": "full_length"}
    stage = stage_of(tokens, bench.share, **settings)
    facts = stage.run({"tokens": tokens, "model": None}, bench)
    replay = stage.steps_taken(json.loads(json.dumps(facts)))
    again = TrainingBench(tmp_path / "steps")
    made = run(tokens, again, **{**settings, **replay})
    assert made["training"]["batch_starts"] == facts["training"]["batch_starts"]
    assert [row["tokens"] for row in again.rows] == [row["tokens"] for row in bench.rows]


def test_a_phase_without_a_step_is_left_out_of_the_replay() -> None:
    made = batch_warmup.replayed(Settings(), {"batch_starts": [0, 1, 1], "steps": 2})
    assert (made.times, made.ends) == ([0.5, 2.0], [0.5])
    assert Settings.model_validate(made.model_dump()) == made


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 97, 1000])
def test_plans_count_the_steps_of_each_phase(steps: int) -> None:
    for ends in ([0.25, 0.5], [0.1, 0.7], [1 / 3, 2 / 3]):
        settings = Settings(times=[1, 2, 3], ends=ends)
        acting = BatchWarmup(settings)
        turns = [acting._turn(step / steps) for step in range(steps)]
        assert steps_of(batch_warmup.phases(settings), steps) == [turns.count(turn) for turn in range(3)]


def test_under_a_budget_the_plan_has_more_of_the_small_steps(tokens: Artifact) -> None:
    facts, share = {"tokens": tokens.facts, "model": None}, Share(seconds=30.0)
    found = []
    for chosen in ({}, {"batch_warmup": {"times": [1, 4], "ends": [0.5]}}):
        stage = stage_of(tokens, share, techniques=chosen)
        found.append(stage.forecast(facts, MACHINE, share).cost)
    assert found[0].seconds == found[1].seconds == 30.0
    # A token takes less time in larger steps, so that more of them are seen.
    assert found[0].tokens < found[1].tokens < 4 * found[0].tokens


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"times": [1, 2], "ends": []}, "one entry less"),
        ({"times": [2, 1], "ends": [0.5]}, "grow"),
        ({"times": [0, 1], "ends": [0.5]}, "above 0"),
        ({"times": [1, 2], "ends": [1.0]}, "between 0 and 1"),
        ({"times": [1, 2, 3], "ends": [0.5, 0.5]}, "between 0 and 1"),
        ({"times": [], "ends": []}, "at least 1"),
        ({"lr": "double"}, "hold"),
    ],
)
def test_settings_that_are_no_growth_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Pretrain(techniques={"batch_warmup": wrong})


class Curriculum(Choice, folder="engine.curriculum"):
    """What is seen when."""


class Sampling(Choice, folder="engine.samplers"):
    """What text."""


@pytest.mark.parametrize(
    ("more", "grows", "found"),
    [
        ({"curriculum": "length_buckets"}, GROWS, "length_buckets"),
        ({"curriculum": "easy_first"}, GROWS, "easy_first"),
        ({"batch": 16}, GROWS, "8, 16, 32 tokens"),
        ({}, {"times": [1, 1.1], "ends": [0.5]}, "hold 4, 4 windows"),
    ],
)
def test_what_cannot_grow_is_refused_by_the_plan(
    tokens: Artifact, more: dict[str, Any], grows: dict[str, Any], found: str
) -> None:
    with pytest.raises(RecipeError, match="this training cannot have") as caught:
        stage_of(tokens, steps=5, techniques={"batch_warmup": grows}, **more)
    assert found in str(caught.value.found) and caught.value.where == "train.pretrain.techniques.batch_warmup"


@pytest.mark.parametrize("sampling", ["loss", "infobatch"])
def test_samplers_that_learn_grow_too(tokens: Artifact, tmp_path: Path, sampling: str) -> None:
    bench = TrainingBench(tmp_path)
    run(tokens, bench, steps=8, sampling=sampling, techniques={"batch_warmup": GROWS})
    assert np.diff([0, *(row["tokens"] for row in bench.rows)]).tolist() == [32] * 2 + [64] * 2 + [128] * 4


def test_a_sampler_of_one_size_is_refused() -> None:
    class Fixed:
        pass

    class Supply:
        label = "train.pretrain"

    with pytest.raises(RecipeError, match="cannot grow"):
        BatchWarmup(Settings()).draw_from(Fixed(), Supply())  # type: ignore[arg-type]


def test_plans_know_the_mean_and_the_largest_step() -> None:
    chosen = {"batch_warmup": Settings(times=[1, 3], ends=[0.75])}
    assert techniques.mean_batch(chosen, 100) == 150 and techniques.largest_batch(chosen, 100) == 300
    assert techniques.mean_batch({}, 100) == techniques.largest_batch({}, 100) == 100
