"""train.tag as the runner sees it: who takes part, who wins and why, the folder, mistakes, resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_encoders import encoder_artifact
from small_tags import fields_artifact, tagged, tags_artifact
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine import tag
from kogata.engine.tag import features, probe
from kogata.stages.evaluate import Evaluate
from kogata.stages.train.tag import Tag

FAST = Machine(cores=2, gemm_flops=150e9, gemm_small_flops=120e9)
ROWS = {
    "form": "tags",
    "labels": ["LOC", "ORG", "PER"],
    "language_hint": "en",
    "splits": {
        "train": {"examples": 3000, "bytes": 360_000, "characters": 360_000},
        "heldout": {"examples": 400},
    },
}
MINILM = {
    "role": "encoder",
    "architecture": "bert",
    "parameters": 22_713_216,
    "vocab_size": 30522,
    "context": 512,
    "encoder": {"width": 384, "layers": 6, "ffn_width": 1536},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and one strength of each regression, which others' tests choose."""
    torch.set_num_threads(1)
    monkeypatch.setattr(features, "STRENGTHS", (32.0,))
    monkeypatch.setattr(probe, "STRENGTHS", (30.0,))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return encoder_artifact(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Rows with enough held out to judge by."""
    return tags_artifact(tmp_path_factory.mktemp("rows"), train=tagged(60), heldout=tagged(100, seed=1))


def run(
    examples: Artifact, bench: TrainingBench, model: Artifact | None = None, **settings: Any
) -> dict[str, Any]:
    stage = Tag(**settings)
    facts = {"examples": examples.facts, "model": model.facts if model else None}
    made = stage.resolve(facts, bench.machine, bench.share).stage
    return made.run({"examples": examples, "model": model}, bench)


def planned(share: Share | None = None, model: Any = MINILM, examples: Any = ROWS, **settings: Any):
    facts, share = {"examples": examples, "model": model}, share or Share()
    stage = Tag(**settings)
    made = stage.resolve(facts, FAST, share)
    return made.reasons.get("method", ""), made.stage.forecast(facts, FAST, share)


def test_without_a_model_features_do_it_japanese_too(tmp_path: Path) -> None:
    rows = []
    for name in ("山田", "田中太郎", "鈴木", "佐藤花子", "高橋"):
        for place in ("東京", "大阪府", "京都", "奈良"):
            start = len(name) + 3
            spans = [[0, len(name), "人名"], [start, start + len(place), "地名"]]
            rows.append({"text": f"{name}さんは{place}へ行った。", "spans": spans})
    bench = TrainingBench(tmp_path / "bench")
    facts = run(fields_artifact(tmp_path / "rows", train=rows), bench)
    assert facts["method"] == "features" and facts["left_out"]["probe"] == "no encoder is given"
    assert facts["role"] == "tagger" and facts["labels"] == ["人名", "地名"] and facts["scheme"] == "iob2"
    shown = facts["methods"]["features"]
    assert shown["judged_on"] == "cross-validated" and shown["f1"] > 0.8 and shown["n"] == 20
    assert facts["unreachable_spans"] == 0
    tagger = tag.load(bench.out)
    (found,) = tag.predict(tagger, ["小林さんは名古屋へ行った。"])
    assert [(each.text, each.label) for each in found] == [("小林", "人名"), ("名古屋", "地名")]
    assert all(0 < each.probability <= 1 for each in found)
    assert tag.is_tagger(bench.out) and not tag.is_tagger(tmp_path)


def test_the_encoder_is_judged_beside_both_baselines(
    judged: Artifact, encoder: Artifact, tmp_path: Path
) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(judged, bench, encoder)
    assert set(facts["methods"]) == {"features", "probe", "full"} and not facts["left_out"]
    for shown in facts["methods"].values():
        assert {
            "f1",
            "standard_error",
            "precision",
            "recall",
            "macro_f1",
            "token_accuracy",
            "by_label",
        } <= set(shown)
        assert shown["judged_on"] == "held-out" and set(shown["by_label"]) == {"ACT", "THING", "動物"}
    assert facts["method"] in facts["methods"] and any("kept: " in line for line in bench.logs)
    # A word decides its tag here: the features know all of it, and what is dearer must lead to be kept.
    assert facts["methods"]["features"]["f1"] > 0.95


def test_training_pays_over_the_probe_and_its_steps_are_written(
    judged: Artifact, encoder: Artifact, tmp_path: Path
) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(judged, bench, encoder, method={"full": {"steps": 30, "lr": 3e-3, "batch": 8}})
    assert facts["method"] == "full" and facts["chosen"] == "as asked"
    assert facts["methods"]["full"]["f1"] > facts["methods"]["probe"]["f1"]
    assert facts["training"]["steps"] == 30 and facts["training"]["watched_rows"] == 0
    written = [json.loads(line) for line in (bench.out / "metrics.jsonl").read_text().splitlines()]
    assert len(written) == 30 and "seconds" not in written[0]
    losses = [row["loss"] for row in written]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_best_weights_are_kept_where_rows_can_watch(encoder: Artifact, tmp_path: Path) -> None:
    rows = tags_artifact(tmp_path / "rows", train=tagged(200), heldout=tagged(100, seed=1))
    bench = TrainingBench(tmp_path / "bench")
    # Steps so large that training destroys what the probe knew: the weights before them are put back.
    facts = run(rows, bench, encoder, method={"full": {"steps": 10, "lr": 0.9, "batch": 8, "warmup": 0}})
    training = facts["training"]
    assert training["watched_rows"] == 20 and training["best_step"] == 0
    assert facts["methods"]["full"] == {**facts["methods"]["probe"]}
    assert any("heldout_loss" in row for row in bench.rows)


@pytest.mark.parametrize("layers", [1, "all"])
def test_frozen_layers_stay(judged: Artifact, encoder: Artifact, tmp_path: Path, layers: Any) -> None:
    from safetensors.torch import load_file

    bench = TrainingBench(tmp_path)
    run(judged, bench, encoder, method={"full": {"steps": 3, "layers": layers, "batch": 8}})
    given, made = (load_file(folder / "model.safetensors") for folder in (encoder.path, bench.out))
    # transformers' module for masked tokens and ours share their base's names.
    same = {name for name in made if name in given and torch.equal(given[name], made[name])}
    assert any(".layer.0." in name for name in same) == (layers == 1)
    assert any("word_embeddings" in name for name in same) == (layers == 1)
    assert not any(".layer.1.attention" in name for name in same)


def test_texts_longer_than_the_context_are_read_to_their_end(encoder: Artifact, tmp_path: Path) -> None:
    def row(words: int, name: str) -> dict[str, Any]:
        text = "the " * words + name
        return {"text": text, "spans": [[len(text) - len(name), len(text), "THING"]]}

    rows = [row(n, name) for n in range(2, 60) for name in ("card", "猫")]
    made = fields_artifact(tmp_path / "rows", train=rows)
    bench = TrainingBench(tmp_path / "bench")
    facts = run(made, bench, encoder, context=16, method={"full": {"steps": 12, "lr": 2e-3}})
    assert facts["context"] == 16 and facts["training"]["windows"] > len(rows)
    (found,) = tag.predict(tag.load(bench.out), ["the " * 90 + "card"])
    assert [(each.start, each.text) for each in found] == [(360, "card")]


def test_parts_of_speech_are_plain_tags(encoder: Artifact, tmp_path: Path) -> None:
    kinds = {
        "the": "DET",
        "card": "NOUN",
        "is": "VERB",
        "lost": "ADJ",
        "new": "ADJ",
        "will": "VERB",
        "app": "NOUN",
    }
    rows = []
    for number in range(40):
        words = [sorted(kinds)[(number * k + k * k) % len(kinds)] for k in range(1, 6)]
        rows.append((words, [kinds[word] for word in words]))
    bench = TrainingBench(tmp_path / "bench")
    made = tags_artifact(tmp_path / "rows", train=rows)
    facts = run(made, bench, encoder, method="probe")
    assert facts["scheme"] == "plain" and facts["labels"] == ["ADJ", "DET", "NOUN", "VERB"]
    tagger = tag.load(bench.out)
    assert tagger.scheme.classes == facts["labels"]
    (found,) = tag.predict(tagger, [["the", "new", "card"]])
    assert [(each.text, each.label) for each in found] == [("the", "DET"), ("new", "ADJ"), ("card", "NOUN")]


def test_same_key_same_bytes_and_killed_too(encoder: Artifact, tmp_path: Path) -> None:
    rows = tags_artifact(tmp_path / "rows", train=tagged(200), heldout=tagged(100, seed=1))
    settings = {"method": {"full": {"steps": 12, "batch": 8, "lr": 1e-3}}}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(rows, whole, encoder, **settings)
    with pytest.raises(Killed):
        run(rows, TrainingBench(tmp_path / "killed", kill_at=7), encoder, **settings)
    bench = TrainingBench(tmp_path / "killed")
    assert run(rows, bench, encoder, **settings) == facts
    for path in whole.out.iterdir():
        assert (bench.out / path.name).read_bytes() == path.read_bytes(), path.name


def test_folds_that_were_judged_are_kept_over_a_kill(encoder: Artifact, tmp_path: Path) -> None:
    rows = tags_artifact(tmp_path / "rows", train=tagged(24))
    settings = {"method": {"full": {"steps": 4, "batch": 8, "lr": 1e-3}}}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(rows, whole, encoder, **settings)
    with pytest.raises(Killed):
        run(rows, TrainingBench(tmp_path / "killed", kill_at=10), encoder, **settings)
    assert (tmp_path / "killed/checkpoints/judged.json").is_file()
    bench = TrainingBench(tmp_path / "killed")
    assert run(rows, bench, encoder, **settings) == facts
    assert bench.rows[-1]["step"] == whole.rows[-1]["step"]


@pytest.mark.parametrize(
    ("share", "takes"),
    [(Share(), True), (Share(seconds=25.0), False), (Share(seconds=1800.0), True)],
)
def test_the_time_decides_whether_the_encoder_is_trained(share: Share, takes: bool) -> None:
    reason, forecast = planned(share)
    tried, _, left = reason.partition("; not ")
    assert "features (" in tried and "probe (" in tried and ("full (" in tried) == takes
    assert takes or "full: would take" in left
    assert forecast.cost.seconds is not None
    assert share.seconds is None or forecast.cost.seconds <= share.seconds


def test_few_rows_leave_training_out() -> None:
    few = {**ROWS, "splits": {"train": {"examples": 30, "bytes": 3000, "characters": 3000}}}
    assert "not full: fewer than 50 rows" in planned(examples=few)[0]


def test_long_texts_are_forecast_with_their_overlap() -> None:
    long = {**ROWS, "splits": {"train": {"examples": 300, "bytes": 3_000_000, "characters": 3_000_000}}}
    short = {**ROWS, "splits": {"train": {"examples": 30_000, "bytes": 3_000_000, "characters": 3_000_000}}}
    tokens = [planned(examples=rows, method="probe")[1].cost.tokens for rows in (long, short)]
    assert tokens[0] > 1.1 * tokens[1]


def test_a_result_replays_without_a_clock(judged: Artifact, encoder: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, tick=0.5, seconds=100.0)
    bench.share = replace(bench.share, seconds=100.0)
    facts = run(judged, bench, encoder, method={"full": {"batch": 8}})
    replay = Tag(**Tag(method={"full": {"batch": 8}}).steps_taken(facts))
    assert replay.method != "auto" and replay.method.settings.steps == facts["training"]["steps"]
    assert not replay.clocked(bench.share) and Tag().clocked(bench.share)
    assert not Tag(method="features").clocked(bench.share)


def test_evaluate_scores_spans_and_says_them(judged: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(judged, bench)
    model = Artifact(kind=Kind.MODEL, digest="tagger", path=bench.out, facts=facts)
    given = {"model": facts, "examples": judged.facts, "corpus": None, "adapter": None}
    resolved = Evaluate().resolve(given, FAST, Share())
    assert "a tagger, which is scored on rows" in resolved.reasons["answers"]
    assert 0 < (resolved.stage.forecast(given, FAST, Share()).cost.seconds or 0) < 30
    scored = TrainingBench(tmp_path / "scores")
    found = Evaluate().run({"model": model, "examples": judged}, scored)
    assert found["tags"]["f1"] == facts["methods"]["features"]["f1"] and found["tags"]["split"] == "heldout"
    assert json.loads((scored.out / "scores.json").read_text())["tags"] == found["tags"]
    assert any("F1 " in line and "spans in 100 heldout rows" in line for line in scored.logs)
    with pytest.raises(DataError, match="no test rows"):
        Evaluate(split="test").run({"model": model, "examples": judged}, TrainingBench(tmp_path / "none"))
    with pytest.raises(RecipeError, match="a tagger is scored on labelled rows"):
        Evaluate().run({"model": model, "examples": None}, TrainingBench(tmp_path / "no rows"))


# Mistakes


def test_a_label_that_training_never_saw(tmp_path: Path) -> None:
    wrong = tags_artifact(tmp_path, train=tagged(30), heldout=[(["my", "card"], ["O", "B-THNG"])])
    with pytest.raises(DataError, match="a heldout row has a label that no training row has") as error:
        run(wrong, TrainingBench(tmp_path / "bench"))
    assert "did you mean 'THING'" in str(error.value)


def test_rows_without_marks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nothing is marked in these rows") as error:
        planned(examples={**ROWS, "form": "label"})
    assert "columns: {tokens: …, tags: …}" in str(error.value)
    nothing = tags_artifact(tmp_path, train=[(["a", "b"], ["O", "O"])] * 5)
    with pytest.raises(DataError, match="nothing to tell apart"):
        run(nothing, TrainingBench(tmp_path / "bench"))


def test_too_few_rows_to_judge_by(tmp_path: Path) -> None:
    few = tags_artifact(tmp_path, train=[(["card"], ["B-THING"]), (["a"], ["O"])])
    with pytest.raises(DataError, match="too few rows to judge by"):
        run(few, TrainingBench(tmp_path / "bench"))


def test_a_decoder_is_refused_and_so_is_a_method_without_its_encoder() -> None:
    with pytest.raises(RecipeError, match="a tagger needs a text encoder"):
        planned(model={"role": "decoder", "spec": {"family": "llama"}, "architecture": "llama"})
    with pytest.raises(RecipeError, match="the method full needs a text encoder") as error:
        planned(model=None, method="full")
    assert "`method: features`" in str(error.value)


def test_a_folder_without_a_tagger(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no tagger"):
        tag.load(tmp_path)
