"""train.classify as the runner sees it: who takes part, who wins and why, the folder, mistakes, resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_encoders import encoder_artifact, examples_artifact, rows
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine.classify import contrastive, load, ngrams, probe
from kogata.stages.train.classify import Classify

FAST = Machine(cores=2, gemm_flops=150e9, gemm_small_flops=120e9)
BANKING = {
    "form": "label",
    "labels": [str(n) for n in range(77)],
    "language_hint": "en",
    "splits": {
        "train": {"examples": 9000, "bytes": 540_000, "characters": 540_000},
        "heldout": {"examples": 900},
    },
}
MINILM = {
    "role": "encoder",
    "architecture": "bert",
    "parameters": 22_713_216,
    "vocab_size": 30522,
    "encoder": {"width": 384, "layers": 6, "ffn_width": 1536},
}

BACKWARDS = {"method": {"ngrams": {"shortest": 4, "longest": 2}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, one strength of each regression, few steps: all are chosen by others' tests."""
    torch.set_num_threads(1)
    monkeypatch.setattr(probe, "STRENGTHS", (30.0,))
    monkeypatch.setattr(ngrams, "STRENGTHS", (16.0,))
    monkeypatch.setattr(contrastive, "LEAST_STEPS", 4)
    monkeypatch.setattr(contrastive, "STEPS_PER_CLASS", 1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return encoder_artifact(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return examples_artifact(tmp_path_factory.mktemp("rows"), train=rows(8), heldout=rows(2, 60))


def run(
    examples: Artifact, bench: TrainingBench, model: Artifact | None = None, **settings: Any
) -> dict[str, Any]:
    stage = Classify(**settings)
    facts = {"examples": examples.facts, "model": model.facts if model else None}
    made = stage.resolve(facts, bench.machine, bench.share).stage
    return made.run({"examples": examples, "model": model}, bench)


def planned(share: Share | None = None, model: Any = MINILM, examples: Any = BANKING, **settings: Any):
    facts, share = {"examples": examples, "model": model}, share or Share()
    stage = Classify(**settings)
    made = stage.resolve(facts, FAST, share)
    return made.reasons.get("method", ""), made.stage.forecast(facts, FAST, share)


def test_auto_without_a_model_is_ngrams(examples: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(examples, bench)
    assert facts["method"] == "ngrams" and facts["left_out"]["probe"] == "no encoder is given"
    assert facts["role"] == "classifier" and facts["labels"] == ["card", "transfer", "猫"]
    shown = facts["methods"]["ngrams"]
    assert shown["accuracy"] > 0.8 and shown["judged_on"] == "cross-validated" and shown["n"] == 24
    assert load(bench.out).probabilities(["my card is lost"]).argmax() == 0
    assert json.loads((bench.out / "training.json").read_text())["method"] == "ngrams"


def test_auto_shows_every_method_and_keeps_a_dear_one_only_for_a_lead(
    examples: Artifact, encoder: Artifact, tmp_path: Path
) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(examples, bench, encoder)
    assert set(facts["methods"]) == {"ngrams", "probe", "contrastive"}
    assert facts["left_out"] == {"full": "fewer than 200 rows"}
    for shown in facts["methods"].values():
        assert {"accuracy", "standard_error", "macro_f1", "macro_f1_standard_error", "n"} <= set(shown)
    assert facts["method"] in facts["methods"] and any("kept: " in line for line in bench.logs)


def test_a_named_method_is_kept_beside_its_baselines(
    examples: Artifact, encoder: Artifact, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    bench = TrainingBench(tmp_path)
    facts = run(examples, bench, encoder, method={"full": {"steps": 6, "lr": 1e-3, "batch": 8}})
    assert facts["method"] == "full" and facts["chosen"] == "as asked"
    assert set(facts["methods"]) == {"ngrams", "probe", "full"}
    assert facts["training"]["steps"] == 6
    module = AutoModelForSequenceClassification.from_pretrained(bench.out)
    assert list(module.config.id2label.values()) == facts["labels"]
    written = (bench.out / "metrics.jsonl").read_text().splitlines()
    assert len(written) == 6 and "seconds" not in json.loads(written[0])
    steps = [row["step"] for row in bench.rows]
    assert steps == sorted(steps), "the steps of several trainings go on"


def test_folds_keep_groups_and_copies_of_a_text_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kogata.engine.classify import _linear

    seen: list[Any] = []
    before = _linear.folds

    def folds(targets: Any, count: int, seed: int, groups: Any = None) -> Any:
        found = before(targets, count, seed, groups)
        seen.append((groups, found))
        return found

    monkeypatch.setattr(_linear, "folds", folds)
    some = [*rows(8), *rows(2)]
    run(examples_artifact(tmp_path / "rows", train=some), TrainingBench(tmp_path / "bench"), method="ngrams")
    groups, parts = seen[0]
    assert len(groups) == 30 and len(set(groups.tolist())) == len({text for text, _ in some})
    for fitted, held in parts:
        assert not set(groups[fitted].tolist()) & set(groups[held].tolist())


def test_held_out_rows_judge_where_there_are_enough(tmp_path: Path) -> None:
    held = examples_artifact(tmp_path / "rows", train=rows(6), heldout=rows(70, 100))
    facts = run(held, TrainingBench(tmp_path / "bench"))
    assert facts["methods"]["ngrams"]["judged_on"] == "held-out" and facts["methods"]["ngrams"]["n"] == 210


def test_same_key_same_bytes_and_killed_too(examples: Artifact, encoder: Artifact, tmp_path: Path) -> None:
    settings = {"method": {"contrastive": {"steps": 6, "batch": 8}}}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(examples, whole, encoder, **settings)
    with pytest.raises(Killed):
        run(examples, TrainingBench(tmp_path / "killed", kill_at=15), encoder, **settings)
    assert (tmp_path / "killed/checkpoints/judged.json").is_file(), "folds that were judged are kept"
    bench = TrainingBench(tmp_path / "killed")
    assert run(examples, bench, encoder, **settings) == facts
    for path in whole.out.iterdir():
        assert (bench.out / path.name).read_bytes() == path.read_bytes(), path.name
    assert bench.rows[-1]["step"] == whole.rows[-1]["step"], "steps go on where they were"


@pytest.mark.parametrize(
    ("share", "takes", "leaves"),
    [
        (Share(), {"ngrams", "probe", "full"}, {"contrastive"}),
        (Share(seconds=40.0), {"ngrams", "probe"}, {"full", "contrastive"}),
        (Share(seconds=900.0), {"ngrams", "probe", "full"}, {"contrastive"}),
    ],
)
def test_the_time_decides_who_takes_part(share: Share, takes: set[str], leaves: set[str]) -> None:
    reason, forecast = planned(share)
    tried, _, left = reason.partition("; not ")
    assert all(name in tried for name in takes), reason
    assert all(name in left for name in leaves), reason
    assert forecast.cost.seconds is not None
    assert share.seconds is None or forecast.cost.seconds <= share.seconds


def test_few_rows_try_contrastive() -> None:
    few = {**BANKING, "splits": {"train": {"examples": 616, "bytes": 37_000, "characters": 37_000}}}
    reason, _ = planned(examples=few)
    assert "contrastive (" in reason and "full (" in reason


def test_only_trainings_that_the_clock_may_end_are_clocked() -> None:
    timed = Share(seconds=60.0)
    assert Classify().clocked(timed) and not Classify().clocked(Share())
    assert not Classify(method="probe").clocked(timed)
    assert not Classify(method={"full": {"steps": 5}}).clocked(timed)
    assert Classify(method="contrastive").clocked(timed)
    assert not Classify(method={"contrastive": {"steps": 5}}).clocked(timed)


def test_a_result_replays_without_a_clock(examples: Artifact, encoder: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, tick=0.5, seconds=100.0)
    bench.share = replace(bench.share, seconds=100.0)
    method = {"contrastive": {"batch": 8}}
    facts = run(examples, bench, encoder, method=method)
    replay = Classify(**Classify(method=method).steps_taken(facts))
    assert replay.method != "auto" and replay.method.settings.steps == facts["training"]["steps"]
    assert not replay.clocked(bench.share)


def test_rows_of_a_split_are_scored(examples: Artifact, tmp_path: Path) -> None:
    from kogata.engine.classify import score_rows

    bench = TrainingBench(tmp_path)
    run(examples, bench)
    found = score_rows(load(bench.out), examples.path, "heldout")
    assert found["n"] == 6 and found["accuracy"] > 0.5 and "macro_f1_standard_error" in found
    with pytest.raises(DataError, match="no test rows"):
        score_rows(load(bench.out), examples.path, "test")


# Mistakes


def test_a_label_that_training_never_saw(tmp_path: Path) -> None:
    wrong = examples_artifact(tmp_path, train=rows(4), heldout=[("my card", "crad")])
    with pytest.raises(DataError, match="no training row has") as error:
        run(wrong, TrainingBench(tmp_path / "bench"))
    assert "heldout.csv:2" in str(error.value) and "did you mean 'card'" in str(error.value)


def test_one_label_only(tmp_path: Path) -> None:
    wrong = examples_artifact(tmp_path, train=[("a", "猫"), ("b", "猫")])
    with pytest.raises(DataError, match="nothing to tell apart") as error:
        run(wrong, TrainingBench(tmp_path / "bench"))
    assert "1 label ('猫')" in str(error.value)


@pytest.mark.parametrize(("row", "field"), [(("  ", "card"), "text"), (("help", " "), "label")])
def test_empty_text_and_missing_label(tmp_path: Path, row: tuple[str, str], field: str) -> None:
    wrong = examples_artifact(tmp_path, train=[*rows(4), row])
    with pytest.raises(DataError, match=f"a row has no {field}") as error:
        run(wrong, TrainingBench(tmp_path / "bench"))
    assert "train.csv:14" in str(error.value)


def test_fewer_rows_than_folds(tmp_path: Path) -> None:
    wrong = examples_artifact(tmp_path, train=[("my card", "card"), ("猫", "猫"), ("transfer", "money")])
    with pytest.raises(DataError, match="too few rows to judge by"):
        run(wrong, TrainingBench(tmp_path / "bench"))


def test_what_does_not_fit_is_refused_when_planned() -> None:
    with pytest.raises(RecipeError, match="no labels"):
        planned(examples={**BANKING, "form": "completion"})
    with pytest.raises(RecipeError, match="needs a text encoder"):
        planned(model={"role": "decoder", "architecture": "qwen3", "spec": {"family": "qwen3"}})
    with pytest.raises(RecipeError, match="needs a text encoder"):
        planned(model=None, method="full")
    for wrong in ({"method": "svm"}, {"method": {"full": {"epochs": -1}}}, {"context": 2}, BACKWARDS):
        with pytest.raises(ValidationError):
            Classify(**wrong)
