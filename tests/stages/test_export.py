"""The stage export: every file is scored where it runs, and refused when it is not the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from export_bench import JAPANESE, MACHINE, bench_in, facts_of, small_given
from pydantic import ValidationError

from kogata.core.errors import RecipeError, Refused
from kogata.core.stage import Share
from kogata.stages.export import Export

ALL = ["hf", "gguf-f32", "gguf-f16", "gguf-q8_0"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_every_format_is_written_and_scored_in_its_runtime(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    given = small_given(tmp_path, text=JAPANESE)
    (tmp_path / "out").mkdir()
    resolved = Export(formats=ALL).resolve(facts_of(given), MACHINE, Share())
    assert set(resolved.reasons) == {"tolerance", "scored_bytes"}
    forecast = resolved.stage.forecast(facts_of(given), MACHINE, Share())
    bench = bench_in(tmp_path / "out")
    facts = resolved.stage.run(given, bench)
    assert set(facts["files"]) == {"hf", "model-f32.gguf", "model-f16.gguf", "model-q8_0.gguf"}
    own = facts["model_bits_per_byte"]
    for place, row in facts["files"].items():
        assert row["runtime"] == ("transformers" if place == "hf" else "llama.cpp")
        assert row["same_token_ids"] and row["scored_bytes"] == facts["scored_bytes"] > 0
        assert row["bits_per_byte"] == pytest.approx(own, abs=0.02)
        assert row["bytes"] == row["largest_file"] > 0
    for place in ("hf", "model-f32.gguf"):
        assert facts["files"][place]["bits_per_byte"] == pytest.approx(own, abs=1e-4)
    sizes = [facts["files"][place]["bytes"] for place in facts["files"]]
    assert sizes[1] > sizes[2] > sizes[3]
    assert forecast.cost.size_bytes == pytest.approx(max(sizes), rel=0.15)
    assert json.loads((tmp_path / "out" / "files.json").read_text(encoding="utf-8")) == facts
    assert not list((tmp_path / "out").glob("*.part"))
    assert sum("bits per byte in" in line for line in bench.said) == 4


def test_a_file_that_is_not_the_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    from kogata.engine.export import _gguf

    given = small_given(tmp_path, family="llama")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(_gguf, "_TURNS_NEIGHBOURS", ())
    with pytest.raises(Refused, match="gguf-f32 loses more than its tolerance") as refused:
        Export(formats=["gguf-f32"]).run(given, bench_in(tmp_path / "out"))
    assert refused.value.exit_code == 3 and "llama.cpp" in str(refused.value)
    Export(formats=["gguf-f32"], tolerance=9.0).run(given, bench_in(tmp_path / "out"))


def test_without_a_corpus_nothing_is_scored_and_nothing_claimed(tmp_path: Path) -> None:
    given = {**small_given(tmp_path), "corpus": None}
    (tmp_path / "out").mkdir()
    facts = Export().run(given, bench_in(tmp_path / "out"))
    assert facts["model_bits_per_byte"] is None and facts["scored_bytes"] == 0
    assert all(row["bits_per_byte"] is None for row in facts["files"].values())


def test_an_unknown_format_is_named_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'gguf-q8_0'"):
        Export(formats=["gguf-q8"])
    model = {"model": {"parameters": 5}, "corpus": None}
    with pytest.raises(RecipeError, match="nothing to write"):
        Export(formats=[]).resolve(model, MACHINE, Share())
    with pytest.raises(ValidationError, match="tolerance"):
        Export(tolerance=-1)
    assert Export.model_validate({"formats": "hf"}).formats == ["hf"]


def test_what_llama_cpp_has_no_graph_for_is_refused_when_planned(tmp_path: Path) -> None:
    facts = {"model": {"architecture": "mamba", "parameters": 5, "spec": None}, "corpus": None}
    with pytest.raises(RecipeError, match="mamba"):
        Export().resolve(facts, MACHINE, Share())
    Export(formats=["hf"]).resolve(facts, MACHINE, Share())


def test_a_file_over_the_budget_is_refused(tmp_path: Path) -> None:
    given = small_given(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match="larger than the budget"):
        Export(formats=["hf"]).run(given, bench_in(tmp_path / "out", share=Share(size_bytes=1000)))
