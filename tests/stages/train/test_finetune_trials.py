"""What train.finetune tries before it starts: learning rates, and whether the upper layers alone will do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples, write_model
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.stage import Share
from kogata.engine import finetune_costs as costs
from kogata.nn.kernels import Kernels
from kogata.stages.train.finetune import Finetune


@pytest.fixture(scope="module")
def kernels() -> Kernels | None:
    return Kernels.build()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, kernels: Kernels | None) -> None:
    """Trials of three steps pay here."""
    torch.set_num_threads(1)
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    monkeypatch.setattr(Kernels, "build", lambda: kernels)
    for name, value in (("LEAST_TRIAL", 2), ("MOST_TRIAL", 3), ("TRIAL_SHARE", 1.0)):
        monkeypatch.setattr(costs, name, value)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_examples(tmp_path_factory.mktemp("examples") / "e")


class Bench(TrainingBench):
    """Is killed when it is asked so often whether to stop: trials leave no rows to count."""

    def __init__(self, folder: Path, kill_after: int | None = None, **more: Any) -> None:
        super().__init__(folder, machine=MACHINE, **more)
        self.kill_after, self.asked = kill_after, 0

    def stopping(self) -> bool:
        self.asked += 1
        if self.kill_after is not None and self.asked > self.kill_after:
            raise Killed
        return super().stopping()


def facts_of(examples: Artifact, model: Artifact) -> dict[str, Any]:
    return {"examples": examples.facts, "model": {**model.facts, "digest": model.digest}}


def run(examples: Artifact, model: Artifact, made: TrainingBench, **settings: Any) -> dict[str, Any]:
    stage = Finetune.model_validate({"batch": 4, "steps": 9, "checkpoint_every": 1, **settings})
    resolved = stage.resolve(facts_of(examples, model), MACHINE, made.share)
    return resolved.stage.run({"examples": examples, "model": model}, made)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rate_is_the_best_of_three(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    """The trials decide the rate and nothing else: with that rate given, the same adapter comes out."""
    made = Bench(tmp_path / "auto")
    training = run(examples, model, made)["training"]
    tried = training["lr_trials"]
    assert tried["steps"] == 3 and len(tried["losses"]) == 3
    assert f"{tried['taken']:g}" == min(tried["losses"], key=tried["losses"].__getitem__)
    assert training["lr"] == tried["taken"] and any("3 rates tried" in line for line in made.logs)
    rows = lines(made.out / "trials.jsonl")
    assert len(rows) == 9 and len({row["trial"] for row in rows}) == 3
    assert len({row["loss"] for row in rows if row["step"] == 1}) == 1, "all start alike, on the same rows"
    assert [row["step"] for row in made.rows] == list(range(1, 10)), "steps of trials are no steps of the run"
    assert made.tokens > sum(row["tokens"] for row in made.rows[-1:]), "but they are counted"
    given = Bench(tmp_path / "given")
    replay = Finetune().steps_taken({"training": training})
    assert replay["lr"] == tried["taken"]
    again = run(examples, model, given, lr=replay["lr"])["training"]
    assert again["lr_trials"] is None and not (given.out / "trials.jsonl").exists()
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (given.out / name).read_bytes() == (made.out / name).read_bytes(), name


def test_killed_after_its_trials_and_resumed_is_the_same(
    examples: Artifact, model: Artifact, tmp_path: Path
) -> None:
    whole, parts = Bench(tmp_path / "whole"), Bench(tmp_path / "parts", kill_after=14)
    facts = run(examples, model, whole)
    with pytest.raises(Killed):
        run(examples, model, parts)
    again = Bench(tmp_path / "parts")
    assert run(examples, model, again) == facts
    for path in whole.out.iterdir():
        assert (again.out / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(("within", "taken"), [(1.5, "third"), (0.5, "all")])
def test_trials_say_whether_the_top_third_suffices(
    examples: Artifact,
    model: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    within: float,
    taken: str,
) -> None:
    """What is taken is trained as if it had been asked for."""
    monkeypatch.setattr("kogata.engine.trials.WITHIN", within)
    settings: dict[str, Any] = {"lr": 0.01, "epochs": 3, "steps": None}
    made, plain = Bench(tmp_path / "auto"), Bench(tmp_path / "plain")
    facts = run(examples, model, made, method={"lora": {"top": "auto", "rank": 2}}, **settings)
    found = facts["training"]["top_trials"]
    assert found["taken"] == taken == facts["settings"]["top"] and found["steps"] == 3
    assert found["heldout"]["third"] != found["heldout"]["all"]
    said = "suffices" if taken == "third" else "all layers are needed"
    assert any(said in line for line in made.logs)
    assert any("are kept" in line for line in made.logs) == (taken == "third")
    run(examples, model, plain, method={"lora": {"top": taken, "rank": 2}}, **settings)
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (plain.out / name).read_bytes() == (made.out / name).read_bytes(), name
    asked = Finetune.model_validate({"method": {"lora": {"top": "auto", "rank": 2}}})
    replayed = Finetune.model_validate({**asked.model_dump(), **asked.steps_taken(facts)})
    assert replayed.method.settings.top == taken and replayed.method.settings.rank == 2


def test_layers_and_rates_killed_and_resumed(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": {"ia3": {"top": "auto"}}, "steps": 13}
    whole, parts = Bench(tmp_path / "whole"), Bench(tmp_path / "parts", kill_after=6)
    facts = run(examples, model, whole, **settings)
    assert facts["training"]["lr_trials"]["steps"] and facts["training"]["top_trials"]["steps"]
    assert len(lines(whole.out / "trials.jsonl")) == 15
    with pytest.raises(Killed):
        run(examples, model, parts, **settings)
    assert run(examples, model, Bench(tmp_path / "parts"), **settings) == facts


def test_layers_that_cannot_be_judged_are_all_trained(model: Artifact, tmp_path: Path) -> None:
    alone = write_examples(tmp_path / "e", heldout=0)
    made = Bench(tmp_path / "b")
    facts = run(alone, model, made, lr=0.01, method={"lora": {"top": "auto"}}, steps=13)
    assert facts["settings"]["top"] == "all" and facts["training"].get("top_trials") is None


def test_a_rate_that_diverges_is_not_taken(
    examples: Artifact, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "PROBE_FACTORS", (1.0, 1e30))
    tried = run(examples, model, Bench(tmp_path), steps=7)["training"]["lr_trials"]
    assert None in tried["losses"].values() and tried["taken"] < 1


def test_the_plan_counts_the_trials(examples: Artifact, model: Artifact) -> None:
    facts = facts_of(examples, model)

    def planned(share: Share | None = None, **settings: Any) -> tuple[Any, Mapping[str, str], Any]:
        stage = Finetune.model_validate({"batch": 4, **settings})
        made = stage.resolve(facts, MACHINE, share or Share())
        return made.stage, made.reasons, made.stage.forecast(facts, MACHINE, share or Share()).cost

    stage, reasons, cost = planned(steps=9)
    _, _, given = planned(steps=9, lr=0.01)
    assert stage.lr == "auto" and "tried for 3 steps" in reasons["lr"]
    assert cost.seconds > given.seconds and cost.tokens == pytest.approx(2 * given.tokens, rel=0.01)
    short, reasons, _ = planned(steps=3)
    assert isinstance(short.lr, float) and "too short" in reasons["lr"]
    top = {"lora": {"top": "auto"}}
    stage, reasons, cost = planned(steps=13, lr=0.01, method=top)
    assert stage.method.settings.top == "auto" and "top third" in reasons["method"]
    assert cost.seconds > planned(steps=13, lr=0.01)[2].seconds
    once, reasons, _ = planned(steps=5, method=top)
    assert once.method.settings.top == "all" and "too short" in reasons["method"]
    stage, _, timed = planned(Share(seconds=60.0))
    assert stage.lr == "auto" and timed.seconds == 60.0


def test_when_trials_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert costs.trial_steps(179, 10_000, 8, 3) == 0 and costs.trial_steps(180, 10_000, 8, 3) == 12
    assert costs.trial_steps(10_000, 10_000, 8, 3) == 32
    assert costs.trial_steps(10_000, 160, 8, 3) == 20 and costs.trial_steps(10_000, 80, 8, 3) == 0
    assert costs.layer_steps(240, 960, 8) == 24
    assert costs.layer_steps(240, 1921, 8) == 0, "rows seen once have nothing that could be kept"
    assert costs.probe_rates(1.3e-3) == [0.00043, 0.0013, 0.0039]
