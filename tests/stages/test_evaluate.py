"""The stage evaluate: what it scores, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from export_bench import ENGLISH, JAPANESE, MACHINE, bench_in, facts_of, small_given
from pydantic import ValidationError

from kogata.core.errors import RecipeError, Stopped
from kogata.core.stage import Share
from kogata.stages.evaluate import Evaluate


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def planned(stage: Evaluate, given) -> Evaluate:
    found = stage.resolve(facts_of(given), MACHINE, Share()).stage
    assert isinstance(found, Evaluate)
    return found


@pytest.mark.parametrize(("text", "english"), [(ENGLISH, True), (JAPANESE, False)], ids=["en", "ja"])
def test_scores_held_out_text(text: str, english: bool, tmp_path: Path) -> None:
    given = small_given(tmp_path, text=text)
    (tmp_path / "out").mkdir()
    stage = planned(Evaluate(sample_tokens=5), given)
    assert stage.window == 64 and stage.minimal_pairs is english
    bench = bench_in(tmp_path / "out")
    facts = stage.run(given, bench)
    score = facts["bits_per_byte"]
    assert score["bytes"] == given["corpus"].facts["splits"]["heldout"]["bytes"] == score["of_bytes"]
    assert score["documents"] == 6 and score["split"] == "heldout" and score["value"] > 0
    assert bench.counted["tokens"] >= score["tokens"] and bench.counted["flops"] > 0
    assert len(facts["samples"]) == 4
    assert ("ある" in facts["samples"][0]["prompt"]) is not english
    written = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert written["bits_per_byte"] == score
    if english:
        pairs = facts["minimal_pairs"]
        assert pairs["n"] == 850 and abs(pairs["accuracy"] - 0.5) < 5 * pairs["standard_error"]
        assert len(written["minimal_pairs"]["by_paradigm"]) == 34 and "by_paradigm" not in pairs
    else:
        assert facts["minimal_pairs"] is None
    (tmp_path / "again").mkdir()
    assert stage.run(given, bench_in(tmp_path / "again")) == facts, "the same every time"


def test_limit_prompts_pairs_of_ones_own(tmp_path: Path) -> None:
    given = small_given(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"good": "The cat sat.", "bad": "Cat the sat."}\n', encoding="utf-8")
    (tmp_path / "out").mkdir()
    settings = {"limit": "400B", "minimal_pairs": "p.jsonl", "prompts": "Once", "sample_tokens": 3}
    stage = Evaluate.model_validate(settings, context={"folder": str(tmp_path)})
    assert stage.minimal_pairs == str(tmp_path / "p.jsonl") and stage.prompts == ["Once"]
    stage = planned(stage, given)
    again = Evaluate.model_validate(stage.model_dump(mode="json"))
    assert again == stage, "settings survive a recipe file"
    facts = stage.run(given, bench_in(tmp_path / "out"))
    assert 380 < facts["bits_per_byte"]["bytes"] <= 400 < facts["bits_per_byte"]["of_bytes"]
    assert facts["minimal_pairs"]["n"] == 1 and [s["prompt"] for s in facts["samples"]] == ["Once"]


def test_without_a_corpus_only_samples(tmp_path: Path) -> None:
    given = {**small_given(tmp_path), "corpus": None}
    stage = Evaluate(sample_tokens=3)
    resolved = stage.resolve({"model": given["model"].facts, "corpus": None}, MACHINE, Share()).stage
    (tmp_path / "out").mkdir()
    facts = resolved.run(given, bench_in(tmp_path / "out"))
    assert facts["bits_per_byte"] is None and facts["minimal_pairs"] is None and len(facts["samples"]) == 4


def test_a_split_that_is_not_there_is_refused_when_planned(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no test text"):
        planned(Evaluate(split="test"), small_given(tmp_path))


def test_stops_when_asked(tmp_path: Path) -> None:
    given = small_given(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(Stopped):
        planned(Evaluate(), given).run(given, bench_in(tmp_path / "out", asked_to_stop=True))


@pytest.mark.parametrize(
    "wrong", [{"limit": 5000}, {"split": "train"}, {"prompts": 3}, {"sample_tokens": -1}]
)
def test_wrong_settings(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Evaluate.model_validate(wrong)


def test_forecast_grows_with_the_text_and_the_model(tmp_path: Path) -> None:
    given = small_given(tmp_path)
    facts = facts_of(given)
    small = planned(Evaluate(), given).forecast(facts, MACHINE, Share()).cost
    facts["corpus"]["splits"]["heldout"]["bytes"] = 200_000
    large = planned(Evaluate(), given).forecast(facts, MACHINE, Share()).cost
    assert small.seconds and large.seconds and large.seconds > small.seconds
    assert large.tokens and large.flops and large.peak_bytes
