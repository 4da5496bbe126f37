"""train.pretrain as the runner sees it: settings, autos, forecast, a run, a resume, a given model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from training_bench import MACHINE, NOVELS, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.stages.train.pretrain import Pretrain

TINY = {"model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}, "context": 16, "batch": 128}
FAST = Machine(cores=2, gemm_flops=150e9, gemm_small_flops=120e9, compiler=True)


pytestmark = pytest.mark.usefixtures("one_thread")


def resolved(facts: dict[str, Any], share: Share | None = None, machine: Machine = MACHINE, **settings: Any):
    stage = Pretrain(**settings)
    return stage.resolve({"tokens": facts, "model": None}, machine, share or Share())


def run(tokens: Artifact, bench: TrainingBench, given: Artifact | None = None, **settings: Any):
    stage = Pretrain(**{**TINY, **settings})
    facts = {"tokens": tokens.facts, "model": given.facts if given else None}
    made = stage.resolve(facts, bench.machine, bench.share).stage
    return made.run({"tokens": tokens, "model": given}, bench)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_makes_a_model_folder(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    facts = run(tokens, bench, steps=40)
    names = {path.name for path in bench.out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "training.json"} <= names
    rows = [json.loads(line) for line in (bench.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 41)) and "seconds" not in rows[0]
    assert rows[-1]["loss"] < rows[0]["loss"] or rows[-1]["loss"] < 1.5
    assert facts["training"]["steps"] == 40 and facts["training"]["tokens"] == 40 * 128
    assert facts["spec"]["vocab_size"] == 61 and facts["end_id"] == 0


def test_starts_as_the_corpus_s_bigram_model(tokens: Artifact, tmp_path: Path) -> None:
    losses = {}
    for start in (True, False):
        bench = TrainingBench(tmp_path / str(start))
        run(tokens, bench, steps=2, corpus_start=start)
        losses[start] = bench.rows[0]["loss"]
    assert losses[True] < losses[False] - 1.0


@pytest.mark.parametrize("family", ["llama", "arcee", "qwen2"])
def test_other_families_and_tied_heads(tokens: Artifact, tmp_path: Path, family: str) -> None:
    model = {**TINY["model"], "family": family, "tied": family == "llama"}
    facts = run(tokens, TrainingBench(tmp_path), steps=3, model=model)
    assert facts["architecture"] == family and facts["spec"]["tied"] == (family == "llama")


HALF = replace(MACHINE, compiler=True, isa="avx512_bf16", bf16_flops=4 * 80e9)


@pytest.mark.parametrize(
    "machine", [MACHINE, replace(MACHINE, compiler=True), HALF], ids=["torch", "fused", "bf16"]
)
def test_same_key_same_weights_and_resumed_too(tokens: Artifact, tmp_path: Path, machine: Machine) -> None:
    folders = []
    for name in ("one", "two"):
        bench = TrainingBench(tmp_path / name, machine=machine)
        facts = run(tokens, bench, steps=20)
        folders.append((bench.out, facts))
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        run(tokens, TrainingBench(killed, machine=machine, kill_at=13), steps=20, checkpoint_every=4)
    bench = TrainingBench(killed, machine=machine)
    facts = run(tokens, bench, steps=20, checkpoint_every=4)
    folders.append((bench.out, facts))
    for folder, facts in folders[1:]:
        assert facts == folders[0][1]
        for name in ("model.safetensors", "metrics.jsonl", "training.json", "config.json"):
            assert (folder / name).read_bytes() == (folders[0][0] / name).read_bytes(), name
    other = TrainingBench(tmp_path / "seed", machine=machine, seed=1)
    run(tokens, other, steps=20)
    assert weights(other.out) != weights(folders[0][0])


def test_long_windows_begin_short_by_doubling() -> None:
    for context, name in ((256, "half_length"), (512, "length_warmup"), (2048, "length_warmup")):
        found = resolved(NOVELS, steps=100, context=context, batch=4096)
        assert found.stage.curriculum.name == name and found.reasons["curriculum"]
    infobatch = resolved(NOVELS, steps=100, context=512, batch=4096, sampling="infobatch")
    assert infobatch.stage.curriculum.name == "full_length"


class Watching(TrainingBench):
    """Notes how products are computed while a step is told."""

    def metric(self, row: Mapping[str, Any]) -> None:
        super().metric({**row, "products": torch.get_float32_matmul_precision()})


def test_products_are_bf16_in_training_alone(tokens: Artifact, tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision()
    for machine, form, told in ((HALF, "bf16", "medium"), (MACHINE, "fp32", "highest")):
        bench = Watching(tmp_path / form, machine=machine)
        facts = run(tokens, bench, steps=3)
        assert facts["training"]["precision"] == form
        assert {row["products"] for row in bench.rows} == {told}
        assert torch.get_float32_matmul_precision() == before
    stage = resolved(NOVELS, machine=HALF, steps=100)
    assert stage.stage.precision == "bf16" and "FLOP/s in bf16" in stage.reasons["precision"]
    seconds = [
        resolved(NOVELS, machine=HALF, steps=100, precision=form)
        .stage.forecast({"tokens": NOVELS, "model": None}, HALF, Share())
        .cost.seconds
        for form in ("fp32", "bf16")
    ]
    assert seconds[1] < seconds[0]
    with pytest.raises(RecipeError, match="16-bit"):
        resolved(NOVELS, steps=100, precision="bf16")


def test_goes_on_with_a_given_model(tokens: Artifact, tmp_path: Path) -> None:
    first = TrainingBench(tmp_path / "first")
    facts = run(tokens, first, steps=60, corpus_start=False)
    model = Artifact(kind=Kind.MODEL, digest="m", path=first.out, facts=facts)
    second = TrainingBench(tmp_path / "second")
    run(tokens, second, model, steps=5)
    assert second.rows[0]["loss"] < first.rows[0]["loss"]
    assert second.rows[0]["loss"] == pytest.approx(first.rows[-1]["loss"], abs=0.4)


def test_keeps_a_time_budget(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path, seconds=None)
    bench.clock.deadline = time.monotonic() + 4.0
    bench.share = Share(seconds=4.0)
    facts = run(tokens, bench)
    left = bench.left()
    assert left is not None and -0.7 < left < 1.2
    assert "seconds" in json.loads((bench.out / "metrics.jsonl").read_text().splitlines()[0])
    replay = Pretrain().steps_taken(facts)
    assert replay["steps"] == facts["training"]["steps"] and replay["time"] is None
    assert Pretrain(**{**TINY, **replay}).clocked(Share()) is False


def test_documents_apart(tokens: Artifact, tmp_path: Path) -> None:
    losses = {}
    for documents in ("joined", "apart"):
        bench = TrainingBench(tmp_path / documents)
        run(tokens, bench, steps=6, documents=documents)
        losses[documents] = [row["loss"] for row in bench.rows]
    assert losses["joined"] != losses["apart"]
    assert losses["joined"] == pytest.approx(losses["apart"], rel=0.1)
    for more in ({"curriculum": "length_buckets"}, {"sampling": "infobatch"}):
        with pytest.raises(RecipeError, match="cannot be kept apart"):
            resolved(tokens.facts, documents="apart", steps=6, **more)


def test_too_few_tokens_is_said_before_the_first_step(tmp_path: Path) -> None:
    few = make_tokens(tmp_path / "few", documents=1, length=12)
    bench = TrainingBench(tmp_path / "bench")
    with pytest.raises(DataError, match="no window"):
        run(few, bench, steps=3)
    assert not bench.rows


def test_a_model_of_another_vocabulary_or_kind_is_refused(tokens: Artifact, tmp_path: Path) -> None:
    first = TrainingBench(tmp_path / "first")
    facts = run(make_tokens(tmp_path / "small", vocab_size=31), first, steps=2)
    model = Artifact(kind=Kind.MODEL, digest="m", path=first.out, facts=facts)
    with pytest.raises(RecipeError, match="do not belong"):
        run(tokens, TrainingBench(tmp_path / "second"), model, steps=2)
    foreign = Artifact(
        kind=Kind.MODEL, digest="m", path=first.out, facts={"architecture": "bert", "spec": None}
    )
    with pytest.raises(RecipeError, match="cannot be trained"):
        run(tokens, TrainingBench(tmp_path / "third"), foreign, steps=2)


def test_settings_that_contradict_are_refused() -> None:
    for wrong in (
        {"steps": 3, "epochs": 1},
        {"tokens": "1M", "time": "5min"},
        {"time": 300},
        {"model": {"layers": 3}},
        {"model": {"heads": 3}},
        {"model": {"family": "gpt2"}},
        {"model": {"parameters": "5 apples"}},
        {"lr": "fast"},
    ):
        with pytest.raises(ValidationError):
            Pretrain(**wrong)


def test_counts_have_units() -> None:
    stage = Pretrain(tokens="2M", model={"parameters": "1.5M"}, batch="4k")
    assert stage.tokens == 2_000_000 and stage.model.parameters == 1_500_000 and stage.batch == 4000


def test_autos_get_values_and_reasons() -> None:
    made = resolved(NOVELS, Share(seconds=240.0), FAST)
    stage = made.stage
    assert (
        stage.model.layers
        and stage.model.width
        and stage.steps is None
        and stage.clocked(Share(seconds=240.0))
    )
    assert {"context", "batch", "lr", "optimizer", "model.parameters"} <= set(made.reasons)
    again = stage.resolve({"tokens": NOVELS, "model": None}, FAST, Share(seconds=240.0))
    assert again.stage == stage and set(again.reasons) <= {"checkpoint_every", "compile"}
    assert type(stage).model_validate(stage.model_dump(mode="json", exclude_none=True)) == stage


def test_more_time_makes_a_larger_model() -> None:
    sizes = []
    for seconds in (20.0, 120.0, 600.0, 3600.0, 36000.0):
        share = Share(seconds=seconds)
        stage = resolved(NOVELS, share, FAST).stage
        sizes.append(stage.forecast({"tokens": NOVELS, "model": None}, FAST, share).facts["parameters"])
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 10


def test_without_length_or_budget_there_is_a_stated_default() -> None:
    made = resolved(NOVELS, None, FAST)
    assert made.stage.steps and "no time budget" in made.reasons["steps"]
    assert not made.stage.clocked(Share())


@pytest.mark.parametrize("wanted", [500_000, 1_000_000, 5_000_000, 20_000_000, 100_000_000])
def test_parameters_as_asked(wanted: int) -> None:
    stage = resolved(NOVELS, None, FAST, model={"parameters": wanted}, steps=10).stage
    found = stage.forecast({"tokens": NOVELS, "model": None}, FAST, Share()).facts["parameters"]
    assert found == pytest.approx(wanted, rel=0.15)


def test_forecast_and_result_have_the_same_facts(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    stage = (
        Pretrain(**{**TINY, "steps": 2})
        .resolve({"tokens": tokens.facts, "model": None}, MACHINE, Share())
        .stage
    )
    forecast = stage.forecast({"tokens": tokens.facts, "model": None}, MACHINE, Share())
    facts = stage.run({"tokens": tokens, "model": None}, bench)
    assert {**facts, "training": None} == {**forecast.facts, "training": None}
    assert forecast.cost.size_bytes == pytest.approx(
        (bench.out / "model.safetensors").stat().st_size, rel=0.2
    )
    assert forecast.cost.tokens == 256 == bench.tokens


def test_memory_budget_makes_smaller_parts() -> None:
    from kogata.engine.costs import micro_tokens
    from kogata.nn.spec import ModelSpec

    spec = ModelSpec.of_family("qwen3", vocab_size=4096, layers=12, width=768, heads=12, ffn_width=2048)
    assert micro_tokens(spec, 16384, 256, None) == 16384
    assert 256 <= micro_tokens(spec, 16384, 256, 200 * 2**20) < 16384


WORDS = {**NOVELS, "vocab_size": 8192}


@pytest.mark.parametrize(
    ("facts", "settings", "every", "why"),
    [
        (WORDS, {}, 4, "64%"),
        (WORDS, {"corpus_start": False}, 1, "statistics"),
        (WORDS, {"tied": True}, 1, "embedding too"),
        ({**NOVELS, "vocab_size": 512}, {}, 1, "little to save"),
    ],
    ids=["head-dominates", "random-start", "tied", "small-vocabulary"],
)
def test_the_head_rests_where_that_pays(facts: dict, settings: dict, every: int, why: str) -> None:
    model = {"layers": 3, "width": 128, "tied": settings.pop("tied", False)}
    made = resolved(facts, None, FAST, steps=40, model=model, tables_every="auto", **settings)
    assert made.stage.tables_every == every and why in made.reasons["tables_every"]
    asked = resolved(facts, None, FAST, steps=40, model=model, tables_every=1, **settings)
    assert asked.stage.tables_every == 1 and "tables_every" not in asked.reasons
    both = [
        one.forecast({"tokens": facts, "model": None}, FAST, Share()).cost
        for one in (asked.stage, made.stage)
    ]
    assert (both[1].seconds < both[0].seconds) == (both[1].flops < both[0].flops) == (every > 1)
    assert both[0].peak_bytes == both[1].peak_bytes  # A step that moves the head needs what it always did.


def test_a_given_model_moves_its_head_in_every_step() -> None:
    spec = resolved(WORDS, None, FAST, steps=40, model={"layers": 3, "width": 128}).stage._spec(
        {"tokens": WORDS, "model": None}
    )
    facts = {"tokens": WORDS, "model": {"spec": spec.to_dict()}}
    made = Pretrain(steps=40, tables_every="auto").resolve(facts, FAST, Share())
    assert made.stage.tables_every == 1 and "statistics" in made.reasons["tables_every"]
    asked = Pretrain(steps=40, tables_every=3).resolve(facts, FAST, Share())
    assert asked.stage.tables_every == 3


def test_the_time_saved_goes_into_steps_not_into_a_larger_shape() -> None:
    from kogata.engine import autosize

    seen = []
    for every in (1, 4):
        shape, tokens = autosize.by_time(
            "qwen3", 8192, False, 256, 1024, 288.0, FAST, tables_every=lambda spec, every=every: every
        )
        seen.append((shape, tokens))
    assert seen[1][0] == seen[0][0] and seen[1][1] > 1.05 * seen[0][1]


def test_a_tied_table_cannot_rest() -> None:
    with pytest.raises(RecipeError, match="cannot rest") as caught:
        resolved(WORDS, None, FAST, steps=40, model={"layers": 3, "width": 128, "tied": True}, tables_every=2)
    assert "tied: false" in str(caught.value.remedy)
    for wrong in (0, -1, 1000, "often"):
        with pytest.raises(ValidationError):
            Pretrain(tables_every=wrong)


def test_a_resting_head_is_counted_and_resumed(tokens: Artifact, tmp_path: Path) -> None:
    stage = Pretrain(**TINY, steps=9, tables_every=4, checkpoint_every=3)
    facts = {"tokens": tokens.facts, "model": None}
    stage = stage.resolve(facts, MACHINE, Share()).stage
    forecast = stage.forecast(facts, MACHINE, Share())
    whole = TrainingBench(tmp_path / "whole")
    made = stage.run({"tokens": tokens, "model": None}, whole)
    assert made["training"]["tables_every"] == 4 and whole.flops == forecast.cost.flops
    with pytest.raises(Killed):
        stage.run({"tokens": tokens, "model": None}, TrainingBench(tmp_path / "k", kill_at=7))
    again = TrainingBench(tmp_path / "k")
    assert stage.run({"tokens": tokens, "model": None}, again) == made
    assert again.rows[0]["step"] == 7 and weights(again.out) == weights(whole.out)
    other = TrainingBench(tmp_path / "every")
    run(tokens, other, steps=9, tables_every=1)
    assert weights(other.out) != weights(whole.out)
