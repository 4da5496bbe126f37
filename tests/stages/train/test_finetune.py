"""train.finetune as the runner sees it: settings, autos, forecast, runs, resume, adapters and models."""

from __future__ import annotations

import json
from dataclasses import replace
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
from kogata.engine import finetune_costs as costs
from kogata.engine.adapters import put_on
from kogata.engine.convert import load_decoder
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec
from kogata.stages.train.finetune import Finetune


@pytest.fixture(scope="module")
def kernels() -> Kernels | None:
    return Kernels.build()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, kernels: Kernels | None) -> None:
    """Compiles the kernels once for all tests here; looking for garbage would take most of their time."""
    torch.set_num_threads(1)
    monkeypatch.setattr("gc.collect", lambda *_: 0)
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
    made = stage.resolve(facts, bench.machine, share or bench.share).stage
    made.forecast(facts, bench.machine, share or bench.share)
    return made.run({"examples": examples, "model": model}, bench)


def bench(folder: Path, **more: Any) -> TrainingBench:
    return TrainingBench(folder, **{"machine": MACHINE, **more})


def rows(made: TrainingBench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.out / "metrics.jsonl").read_text().splitlines()]


IDS = torch.arange(1, 20)[None]


@pytest.fixture(scope="module")
def tuned(
    examples: Artifact, model: Artifact, kernels: Kernels | None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingBench, dict[str, Any]]:
    """An adapter that several tests look at."""
    torch.set_num_threads(1)
    made = bench(tmp_path_factory.mktemp("tuned"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernels, "build", lambda: kernels)
        return made, run(examples, model, made, steps=20)


def logits(decoder: Any) -> torch.Tensor:
    with torch.no_grad():
        return decoder(IDS)


def test_an_adapter_comes_out(model: Artifact, tuned: tuple[TrainingBench, dict[str, Any]]) -> None:
    made, facts = tuned
    names = {path.name for path in made.out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json", "metrics.jsonl"} <= names
    found = rows(made)
    assert len(found) == 20 and found[-1]["loss"] < found[0]["loss"] - 0.4
    heldout = facts["training"]["heldout"]
    assert heldout["loss"] < heldout["loss_before"] and any("heldout_loss" in row for row in found)
    general = facts["training"]["general"]
    assert general["language"] == "ja" and general["bits_per_byte"] != general["bits_per_byte_before"]
    assert facts["base_digest"] == "model" and facts["rank"] == 16
    # The small tokenizer has no chat template: ChatML was used, and is saved with the adapter.
    assert (made.out / "chat_template.jinja").is_file() and any("ChatML" in line for line in made.logs)
    gap = logits(put_on(load_decoder(model.path), made.out)) - logits(load_decoder(model.path))
    assert float(gap.abs().max()) > 1e-3


def test_what_follows_takes_the_tuned_model(
    examples: Artifact, model: Artifact, tuned: tuple[TrainingBench, dict[str, Any]], tmp_path: Path
) -> None:
    """Evaluate scores base and adapter together, export writes them merged: never the base alone."""
    from export_bench import bench_in
    from transformers import AutoModelForCausalLM

    from kogata.report.sections import sample_rows
    from kogata.stages.evaluate import Evaluate
    from kogata.stages.export import Export

    made, facts = tuned
    adapter = Artifact(kind=Kind.ADAPTER, digest="a", path=made.out, facts=facts)
    given = {"model": model, "adapter": adapter, "examples": examples, "corpus": None}
    for name in ("scores", "bundle", "bundle-work"):
        (tmp_path / name).mkdir()
    stage = Evaluate.model_validate({"window": 64, "minimal_pairs": False, "sample_tokens": 2})
    found = stage.run(given, bench_in(tmp_path / "scores"))
    scores = found["examples"]
    shown = sample_rows(found["samples"])
    assert shown and all(row["expected"] and "before" in found["samples"][0] for row in shown)
    assert scores["loss_nats_per_token"] == pytest.approx(facts["training"]["heldout"]["loss"], abs=2e-3)
    assert scores["base_loss_nats_per_token"] > scores["loss_nats_per_token"] + 0.1
    bench_of_export = bench_in(tmp_path / "bundle")
    bench_of_export.checkpoints = tmp_path / "bundle-work"
    Export(formats=["hf"]).run(given, bench_of_export)
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "bundle" / "hf", dtype=torch.float32)
    with torch.no_grad():
        theirs = hf(IDS).logits
    assert float((theirs - logits(put_on(load_decoder(model.path), made.out))).abs().max()) < 1e-4
    assert (tmp_path / "bundle" / "adapter" / "adapter_config.json").is_file()


WHOLE: list[dict[str, Any]] = [
    {"method": "full", "lr": 0.002},
    {"method": "lora", "merge": True},
    {"method": {"freeze": {"top": 1}}, "lr": 0.005},
]


@pytest.mark.parametrize("settings", WHOLE, ids=str)
def test_a_model_comes_out(
    examples: Artifact, model: Artifact, tmp_path: Path, settings: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    made = bench(tmp_path)
    facts = run(examples, model, made, steps=6, **settings)
    assert facts["spec"] == model.facts["spec"] and facts["training"]["steps"] == 6
    ours, base = load_decoder(made.out), load_decoder(model.path)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(made.out, dtype=torch.float32)(IDS).logits
    assert float((logits(ours) - theirs).abs().max()) < 1e-4
    assert float((logits(base) - theirs).abs().max()) > 1e-3
    changed = [name for name, w in ours.named_parameters() if not torch.equal(w, base.get_parameter(name))]
    if "freeze" in str(settings):
        assert changed and all(name.startswith(("blocks.2.", "norm.")) for name in changed)
    else:
        assert any(name.startswith("blocks.0.") for name in changed)


def test_kind_follows_the_method() -> None:
    assert Finetune().made_kind({}) == Kind.ADAPTER
    assert Finetune.model_validate({"method": "full"}).made_kind({}) == Kind.MODEL
    assert Finetune(merge=True).made_kind({}) == Kind.MODEL


SCATTERED = {"sparse": {"form": "scattered", "rank": 4, "top": 2}}
BESIDE = {"adapter": {"form": "beside", "size": 4}}
FRONT = {"prefix": {"tokens": 3, "text": "Answer: 猫"}}
METHODS: list[Any] = [
    "full",
    "ia3",
    {"peft": {"tuner": "loha"}},
    {"lora": {"rank": 2, "top": 1}},
    SCATTERED,
    BESIDE,
    FRONT,
]


NARROW = [(method, "bf16") for method in ("full", {"lora": {"rank": 2, "top": 1}})]


@pytest.mark.parametrize(("method", "precision"), [*((one, "fp32") for one in METHODS), *NARROW], ids=str)
def test_killed_and_resumed_is_the_same(
    examples: Artifact, model: Artifact, tmp_path: Path, method: Any, precision: str
) -> None:
    settings = {"method": method, "steps": 8, "checkpoint_every": 2, "precision": precision}
    # Products in 16 bits are slow on a processor without, and the same.
    machine = replace(MACHINE, bf16_flops=MACHINE.gemm_flops)
    whole = bench(tmp_path / "whole", machine=machine)
    parts = bench(tmp_path / "parts", machine=machine, kill_at=5)
    facts = run(examples, model, whole, **settings)
    with pytest.raises(Killed):
        run(examples, model, parts, **settings)
    again = bench(tmp_path / "parts", machine=machine)
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

    settings: dict[str, Any] = {"epochs": 2, "method": {"freeze": {"top": 1}}}
    made = bench(tmp_path / "kept")
    run(examples, model, made, **settings)
    assert any("are kept" in line for line in made.logs)
    kept = [row["loss"] for row in rows(made)]
    plain = bench(tmp_path / "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "_kept_outputs", lambda *_: None)
        run(examples, model, plain, **settings)
    assert kept == pytest.approx([row["loss"] for row in rows(plain)], abs=2e-3)


def test_the_best_weights_are_kept(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    """At a rate that ruins the model, training ends early and the best weights are put back."""
    made = bench(tmp_path)
    facts = run(examples, model, made, steps=24, lr=2.0, patience=1)
    training = facts["training"]
    assert Finetune().steps_taken(facts)["steps"] == 24, "the same steps are planned when it is replayed"
    assert training["heldout"]["ended_early"] and training["steps"] < 24
    heldout = training["heldout"]
    assert heldout["best_step"] < training["steps"]
    from kogata.engine.looks import heldout_loss, look_rows
    from kogata.engine.rendered import render_rows
    from kogata.nn.packed import PackedHidden

    rows = render_rows(examples.path, model.path, context=64).heldout
    decoder = put_on(load_decoder(model.path), made.out)
    found = heldout_loss(PackedHidden(decoder, None), rows, look_rows(rows, 8192))
    assert found == pytest.approx(heldout["loss"], abs=1e-3)


def test_what_small_memory_asks_for(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    """Weights that bf16 holds exactly train to the same bits as in float32, and so does computing again;
    int8 comes near."""
    from kogata.engine.convert import save_decoder

    decoder = load_decoder(model.path)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.copy_(weight.bfloat16())
    save_decoder(decoder, tmp_path / "m", tokenizer_files_from=model.path)
    base = Artifact(kind=Kind.MODEL, digest="m", path=tmp_path / "m", facts=model.facts)
    losses, weights, marks = {}, {}, set()
    method = {"lora": {"layers": ["q_proj", "down_proj"]}}
    for hold, recompute in (("fp32", False), ("bf16", True), ("int8", False), ("disk", True)):
        made = bench(tmp_path / hold)
        run(examples, base, made, steps=4, hold=hold, recompute=recompute, method=method)
        losses[hold] = [row["loss"] for row in rows(made)]
        weights[hold] = (made.out / "adapter_model.safetensors").read_bytes()
        marks.add(json.loads((made.out / "training.json").read_text())["base_fingerprint"])
    assert len(marks) == 1, "the fingerprint is of the weights in the file"
    assert losses["bf16"] == losses["fp32"] and weights["bf16"] == weights["fp32"]
    assert losses["disk"] == losses["fp32"] and weights["disk"] == weights["fp32"]
    assert losses["int8"] != losses["fp32"]
    assert losses["int8"] == pytest.approx(losses["fp32"], abs=0.02)


SMOLLM2 = ModelSpec.of_family(
    "llama", vocab_size=49152, layers=30, width=576, heads=9, kv_heads=3, ffn_width=1536, tied=True,
    norm_eps=1e-5, context=8192,
)  # fmt: skip


def test_memory_decides_how_weights_are_held(examples: Artifact) -> None:
    facts = {
        "examples": examples.facts,
        "model": {"spec": SMOLLM2.to_dict(), "vocab_size": 49152, "context": 8192},
    }

    def planned(gib: float, **settings: Any) -> tuple[Any, int]:
        share = Share(memory_bytes=round(gib * 2**30))
        made = Finetune.model_validate(settings).resolve(facts, MACHINE, share)
        assert {"hold", "recompute"} <= set(made.reasons) | set(settings)
        return made.stage, made.stage.forecast(facts, MACHINE, share).cost.peak_bytes or 0

    (wide, most), (narrow, least) = planned(4), planned(1.1)
    assert wide.hold == "fp32" and not wide.recompute
    assert narrow.hold == "bf16" and narrow.context >= 64
    assert least <= 1.1 * 2**30 < most
    held = [planned(gib / 100)[0].hold for gib in range(140, 80, -2)]
    assert list(dict.fromkeys(held)) == ["fp32", "bf16", "int8", "disk"], (
        "from disk where 8 bits do not fit either"
    )
    made = planned(0.9)[0]
    assert made.recompute and planned(0.9, hold="disk", recompute=True)[1] < planned(1.1, hold="int8")[1]
    full, needed = planned(1.2, method="full")
    assert full.hold == "fp32" and full.recompute and needed > 2 * 2**30, "the plan then refuses"
    asked, _ = planned(1.2, hold="int8", recompute=False)
    assert asked.hold == "int8" and asked.recompute is False
    for settings in ({"method": "full"}, {"merge": True}, {"method": {"lora": {"init": "pissa"}}}):
        with pytest.raises(RecipeError, match="fewer bits"):
            planned(4, hold="bf16", **settings)


def test_looks_are_in_proportion() -> None:
    assert costs.look_tokens(1e3) == costs.LEAST_LOOK and costs.look_tokens(1e9) == costs.MOST_LOOK
    assert costs.look_tokens(2e5) == 4000


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
    hybrid = ModelSpec.of_family(
        "lfm2", vocab_size=61, layers=3, width=32, heads=4, kv_heads=2, ffn_width=48, context=64
    )
    facts["model"] = {"spec": hybrid.to_dict(), "vocab_size": 61, "context": 64}
    with pytest.raises(RecipeError, match="method: full"):
        Finetune().resolve(facts, MACHINE, Share())
    Finetune.model_validate({"method": "full"}).resolve(facts, MACHINE, Share())


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
