"""train.finetune as the runner sees it: settings, autos, forecast, runs, resume, adapters and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples, write_model
from pydantic import ValidationError
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.stage import Share
from kogata.engine.adapters import put_on
from kogata.engine.convert import load_decoder
from kogata.nn.kernels import Kernels
from kogata.stages.train.finetune import Finetune


@pytest.fixture(scope="module")
def kernels() -> Kernels | None:
    return Kernels.build()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, kernels: Kernels | None) -> None:
    """Compiles the kernels once for all tests here."""
    torch.set_num_threads(1)
    monkeypatch.setattr(Kernels, "build", lambda: kernels)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_examples(tmp_path_factory.mktemp("examples") / "e")


def run(
    examples: Artifact, model: Artifact, bench: TrainingBench, share: Share | None = None, **settings: Any
) -> dict[str, Any]:
    stage = Finetune.model_validate({"lr": 0.01, "batch": 4, **settings})
    facts = {"examples": examples.facts, "model": {**model.facts, "digest": model.digest}}
    made = stage.resolve(facts, MACHINE, share or bench.share).stage
    made.forecast(facts, MACHINE, share or bench.share)
    return made.run({"examples": examples, "model": model}, bench)


def bench(folder: Path, **more: Any) -> TrainingBench:
    return TrainingBench(folder, machine=MACHINE, **more)


def rows(made: TrainingBench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.out / "metrics.jsonl").read_text().splitlines()]


def test_an_adapter_comes_out(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    made = bench(tmp_path)
    facts = run(examples, model, made, steps=24)
    names = {path.name for path in made.out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json", "metrics.jsonl"} <= names
    found = rows(made)
    assert len(found) == 24 and found[-1]["loss"] < found[0]["loss"] - 0.5
    heldout = facts["training"]["heldout"]
    assert heldout["loss"] < heldout["loss_before"] and any("heldout_loss" in row for row in found)
    assert facts["base_digest"] == "model" and facts["rank"] == 16
    # The small tokenizer has no chat template: ChatML was used, and is saved with the adapter.
    assert (made.out / "chat_template.jinja").is_file() and any("ChatML" in line for line in made.logs)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        gap = put_on(load_decoder(model.path), made.out)(ids) - load_decoder(model.path)(ids)
    assert float(gap.abs().max()) > 1e-3


@pytest.mark.parametrize("settings", [{"method": "full", "lr": 0.002}, {"method": "lora", "merge": True}])
def test_a_model_comes_out(
    examples: Artifact, model: Artifact, tmp_path: Path, settings: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    made = bench(tmp_path)
    facts = run(examples, model, made, steps=8, **settings)
    assert facts["spec"] == model.facts["spec"] and facts["training"]["steps"] == 8
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(made.out, dtype=torch.float32)(ids).logits
        assert float((load_decoder(made.out)(ids) - theirs).abs().max()) < 1e-4
        assert float((load_decoder(model.path)(ids) - theirs).abs().max()) > 1e-3


def test_kind_follows_the_method() -> None:
    assert Finetune().made_kind({}) == Kind.ADAPTER
    assert Finetune.model_validate({"method": "full"}).made_kind({}) == Kind.MODEL
    assert Finetune(merge=True).made_kind({}) == Kind.MODEL


METHODS: list[Any] = ["lora", "full", {"lora": {"rank": 2, "top": 1}}]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_killed_and_resumed_is_the_same(
    examples: Artifact, model: Artifact, tmp_path: Path, method: Any
) -> None:
    settings = {"method": method, "steps": 9, "checkpoint_every": 2}
    whole, parts = bench(tmp_path / "whole"), bench(tmp_path / "parts", kill_at=5)
    facts = run(examples, model, whole, **settings)
    with pytest.raises(Killed):
        run(examples, model, parts, **settings)
    again = bench(tmp_path / "parts")
    assert run(examples, model, again, **settings) == facts
    for path in whole.out.iterdir():
        assert (again.out / path.name).read_bytes() == path.read_bytes(), path.name


def test_accumulated_is_the_big_batch(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    losses = []
    for number, memory in enumerate((None, 1)):
        made = bench(tmp_path / str(number))
        made.share = Share(memory_bytes=memory)
        run(examples, model, made, share=Share(), steps=4, context=64)
        losses.append([row["loss"] for row in rows(made)])
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def test_kept_outputs_change_nothing(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    """Later passes start above the frozen layers, and reach what computing them again reaches."""
    from kogata.engine import finetuning

    made = bench(tmp_path / "kept")
    run(examples, model, made, epochs=3, method={"lora": {"top": 1}})
    assert any("are kept" in line for line in made.logs)
    kept = [row["loss"] for row in rows(made)]
    plain = bench(tmp_path / "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "_kept_outputs", lambda *_: None)
        run(examples, model, plain, epochs=3, method={"lora": {"top": 1}})
    assert kept == pytest.approx([row["loss"] for row in rows(plain)], abs=2e-3)


def test_the_best_weights_are_kept(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    """At a rate that ruins the model, training ends early and the best weights are put back."""
    made = bench(tmp_path)
    facts = run(examples, model, made, steps=24, lr=2.0, patience=1)
    training = facts["training"]
    assert training["heldout"]["ended_early"] and training["steps"] < 24
    heldout = training["heldout"]
    assert heldout["best_step"] < training["steps"]
    from kogata.engine.finetuning import _look, _look_rows
    from kogata.engine.rendered import render_rows
    from kogata.nn.packed import PackedHidden

    rows = render_rows(examples.path, model.path, context=64).heldout
    decoder = put_on(load_decoder(model.path), made.out)
    assert _look(PackedHidden(decoder, None), rows, _look_rows(rows)) == pytest.approx(
        heldout["loss"], abs=1e-3
    )


def test_by_the_clock(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    made = bench(tmp_path, seconds=4.0, tick=0.1)
    facts = run(examples, model, made, share=Share(seconds=4.0))
    assert 5 <= facts["training"]["steps"] <= 60


def test_texts_are_cut_and_long_answers_left_out(model: Artifact, tmp_path: Path) -> None:
    texts = write_examples(tmp_path / "t", [{"text": "The cat sat on the mat. " * 30}] * 4, heldout=1)
    made = bench(tmp_path / "a")
    facts = run(texts, model, made, steps=2, context=32)
    assert facts["training"]["rows"] > 6
    long = [{"prompt": "q", "completion": "word " * 200}, {"prompt": "q", "completion": "猫"}] * 3
    made = bench(tmp_path / "b")
    facts = run(write_examples(tmp_path / "l", long, heldout=2), model, made, steps=2, context=48)
    assert facts["training"]["rows_left_out"] == {"longer than the context": 2}
    assert any("rows.jsonl:1" in line and "tokens" in line for line in made.logs)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"prompt": "q", "completion": "word " * 300}] * 4, "longer than the context"),
        ([{"messages": [{"role": "assistant", "content": "a"}] * 2}] * 4, "none of the"),
        ([], "no rows"),
    ],
    ids=["long", "roles", "empty"],
)
def test_rows_that_cannot_be_trained_on(
    model: Artifact, tmp_path: Path, rows: list[dict[str, Any]], found: str
) -> None:
    with pytest.raises(DataError) as caught:
        run(write_examples(tmp_path / "e", rows, heldout=0), model, bench(tmp_path / "b"), steps=1)
    assert found in str(caught.value)


def test_a_tokenizer_that_does_not_fit(examples: Artifact, tmp_path: Path) -> None:
    small = write_model(tmp_path / "m")
    facts = {**small.facts, "vocab_size": 40}
    other = Artifact(kind=Kind.MODEL, digest="m", path=small.path, facts=facts)
    with pytest.raises(RecipeError, match="tokenizer does not fit"):
        run(examples, other, bench(tmp_path / "b"), steps=1)


def test_other_architectures_are_refused(examples: Artifact) -> None:
    facts = {"examples": examples.facts, "model": {"spec": None, "architecture": "bert"}}
    with pytest.raises(RecipeError, match="cannot be fine-tuned"):
        Finetune().resolve(facts, MACHINE, Share())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"epochs": 1, "steps": 3}, "at most one of"),
        ({"method": "lorra"}, "did you mean 'lora'"),
        ({"method": {"lora": {"ranks": 3}}}, "ranks"),
        ({"method": {"lora": {}, "full": {}}}, "one variant"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Finetune.model_validate(settings)
    assert found in str(caught.value)


def test_autos(examples: Artifact, model: Artifact) -> None:
    facts = {"examples": examples.facts, "model": model.facts}
    made = Finetune().resolve(facts, MACHINE, Share())
    stage: Any = made.stage
    assert stage.batch == 8 and stage.epochs == 5 and stage.context == 64 and 1e-3 < stage.lr < 0.1
    assert {"batch", "epochs", "context", "lr", "warmup"} <= set(made.reasons)
    full: Any = Finetune.model_validate({"method": "full"}).resolve(facts, MACHINE, Share()).stage
    assert full.lr == pytest.approx(stage.lr / 10, rel=0.1)
    timed: Any = Finetune().resolve(facts, MACHINE, Share(seconds=60.0)).stage
    assert timed.epochs is None and timed.clocked(Share(seconds=60.0))
