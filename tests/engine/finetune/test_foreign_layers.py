"""Upper layers alone and frozen weights held narrower, in modules of transformers: by stage and loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples
from small_foreign import write_foreign
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine import finetuning
from kogata.engine.adapters import put_on
from kogata.engine.finetune._foreign import stand_in
from kogata.engine.foreign import ForeignPacked
from kogata.engine.foreign_shape import shape_of
from kogata.engine.frozen import KeptOutputs
from kogata.engine.layered import Layers
from kogata.engine.load import Foreign, load_model
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rendered import render_rows
from kogata.engine.rows import RowSampler
from kogata.stages.train.finetune import Finetune

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("gpt2", "phi", "mistral", "gemma3_text", "qwen3")
"""Without and with sliding windows; the last two only where they are taken for what we cannot express."""
STAGED = ("gpt2", "phi", "mistral")
TOP: dict[str, Any] = {"lora": {"rank": 4, "top": 1}}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_examples(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {kind: write_foreign(tmp_path_factory.mktemp("model") / kind, kind) for kind in KINDS}


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def run(examples: Artifact, model: Artifact, folder: Path, kill: int | None = None, **settings: Any) -> Any:
    made = TrainingBench(folder, machine=MACHINE)
    made.kill_at = kill
    stage = Finetune.model_validate({"batch": 4, "lr": 5e-3, **settings})
    facts = {"examples": examples.facts, "model": model.facts}
    chosen = stage.resolve(facts, MACHINE, Share()).stage
    found = chosen.run({"examples": examples, "model": model}, made)
    lines = (made.out / "metrics.jsonl").read_text().splitlines()
    return made, found, [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_kept_outputs_give_the_same_gradients(
    kind: str, examples: Artifact, models: dict[str, Artifact], tmp_path: Path
) -> None:
    """In float32 to the last bit, rows of both passes in one batch included; rounded, near."""
    rows = render_rows(examples.path, models[kind].path, context=96).train
    decoder = Foreign(theirs(models[kind].path), 96)
    decoder.layers = Layers(decoder.model).check()
    decoder.requires_grad_(False)
    trained = [
        weight for part in decoder.layers.modules[1:] for weight in part.parameters() if weight.dim() > 1
    ]
    for weight in trained:
        weight.requires_grad_(True)
    packed: Any = ForeignPacked(decoder)

    def gradients(objective: TrainedTokens, batch: Any) -> tuple[float, list[torch.Tensor]]:
        decoder.zero_grad()
        loss = objective(batch, 0.1)
        loss.backward()
        return float(loss), [weight.grad.clone() for weight in trained]

    kept = KeptOutputs(tmp_path / "wide.bin", rows, 32, half=False)
    half = KeptOutputs(tmp_path / "half.bin", rows, 32, half=True)
    chosen = [2, 0, 5, 3]
    passes = (([2, 5], [False, False]), (chosen, [True, False, True, False]), (chosen, [True] * 4))
    for numbers, again in passes:
        batch = rows.pack(numbers, again)
        plain = gradients(TrainedTokens(packed), batch)
        for objective in (TrainedTokens(packed, 1), TrainedTokens(packed, 1, kept)):
            found = gradients(objective, batch)
            if len(set(again)) == 1 and all(map(torch.equal, found[1], plain[1])):
                assert found[0] == plain[0]
            else:
                # Rows beside longer ones are computed with other padding.
                assert found[0] == pytest.approx(plain[0], rel=1e-6)
                for mine, other in zip(found[1], plain[1], strict=True):
                    assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)
        rounded = gradients(TrainedTokens(packed, 1, half), batch)
        assert rounded[0] == pytest.approx(plain[0], rel=2e-3)
    first = gradients(TrainedTokens(packed, 1, kept), rows.pack(chosen))
    later = gradients(TrainedTokens(packed, 1, kept), rows.pack(chosen, [True] * 4))
    assert first[0] == later[0] and all(map(torch.equal, first[1], later[1]))


@pytest.mark.parametrize("kind", STAGED)
def test_upper_layers_alone(
    kind: str, examples: Artifact, models: dict[str, Artifact], tmp_path: Path
) -> None:
    import peft

    model, settings = models[kind], {"epochs": 3, "method": TOP}
    made, facts, kept = run(examples, model, tmp_path / "kept", **settings)
    assert any("outputs of the 2 frozen layers are kept" in line for line in made.logs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "_kept_outputs", lambda *_: None)
        _, _, plain = run(examples, model, tmp_path / "plain", **settings)
    assert kept == pytest.approx(plain, abs=2e-3) and kept[-1] < kept[0]
    before = facts["training"]["heldout"]
    assert before["loss"] < before["loss_before"]
    ids = torch.arange(2, 26)[None]
    with torch.no_grad():
        loaded = peft.PeftModel.from_pretrained(theirs(model.path), made.out).eval()(input_ids=ids).logits
        ours = load_model(model.path, adapter=made.out).decoder(ids)
        base = theirs(model.path)(input_ids=ids).logits
    assert torch.allclose(ours, loaded, atol=1e-4) and not torch.allclose(base, loaded, atol=1e-3)
    from safetensors.torch import load_file

    names = load_file(made.out / "adapter_model.safetensors")
    layers = {name.split(".h." if kind == "gpt2" else ".layers.")[1].split(".")[0] for name in names}
    assert layers == {"2"}


@pytest.mark.parametrize("kind", STAGED)
def test_only_the_upper_layers_weights(
    kind: str, examples: Artifact, models: dict[str, Artifact], tmp_path: Path
) -> None:
    method = {"freeze": {"top": 2}}
    made, facts, losses = run(examples, models[kind], tmp_path, epochs=2, method=method, lr=2e-3)
    assert made and losses[-1] < losses[0]
    before, after = theirs(models[kind].path), theirs(made.out)
    changed = {
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    held = Layers(before)
    frozen = {id(weight) for weight in held.modules[0].parameters()}
    frozen |= {id(before.get_input_embeddings().weight), id(before.get_output_embeddings().weight)}
    upper = [weight for part in held.modules[1:] for weight in part.parameters()]
    assert not changed & {name for name, weight in before.named_parameters() if id(weight) in frozen}
    assert len(changed) >= len(upper) - 2 and any("norm" in n or "ln_f" in n for n in changed)
    assert facts["architecture"] == kind


def test_what_small_memory_asks_for(examples: Artifact, models: dict[str, Artifact], tmp_path: Path) -> None:
    """Weights that bf16 holds exactly train to float32's bits, from disk too; int8 comes near."""
    for kind in ("gpt2", "mistral"):
        losses, weights, marks = {}, {}, set()
        for hold, recompute in (("fp32", False), ("bf16", False), ("disk", True), ("int8", True)):
            more = {"hold": hold, "recompute": recompute, "method": {"lora": {"rank": 4}}}
            made, _, losses[hold] = run(examples, models[kind], tmp_path / kind / hold, steps=4, **more)
            weights[hold] = (made.out / "adapter_model.safetensors").read_bytes()
            marks.add(json.loads((made.out / "training.json").read_text())["base_fingerprint"])
        assert len(marks) == 1
        for hold in ("bf16", "disk"):
            assert losses[hold] == losses["fp32"] and weights[hold] == weights["fp32"]
        assert losses["int8"] != losses["fp32"]
        assert losses["int8"] == pytest.approx(losses["fp32"], abs=0.02)


def test_both_together_killed_and_resumed(
    examples: Artifact, models: dict[str, Artifact], tmp_path: Path
) -> None:
    for hold in ("fp32", "disk"):
        settings = {"epochs": 3, "method": TOP, "hold": hold, "checkpoint_every": 2}
        whole, facts, losses = run(examples, models["mistral"], tmp_path / hold, **settings)
        with pytest.raises(Killed):
            run(examples, models["mistral"], tmp_path / f"{hold}-cut", kill=9, **settings)
        again, found, later = run(examples, models["mistral"], tmp_path / f"{hold}-cut", **settings)
        assert found == facts and later == losses
        name = "adapter_model.safetensors"
        assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()


LARGE = {
    "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
    "vocab_size": 50257, "tie_word_embeddings": True,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "spec": None, "role": "decoder", "architecture": "gpt2", "vocab_size": 50257, "context": 1024,
    "parameters": 124_439_808, "source": None, "shape": shape_of(LARGE),
}  # fmt: skip


def test_a_plan_knows_all_of_it(examples: Artifact) -> None:
    spec = stand_in(GPT2)
    assert (spec.layers, spec.width, spec.heads) == (12, 768, 12)
    assert spec.parameters() == pytest.approx(GPT2["parameters"], rel=0.001)
    given = {"examples": examples.facts, "model": GPT2}

    def planned(gib: float, **settings: Any) -> Any:
        share = Share(memory_bytes=round(gib * 2**30))
        made = Finetune.model_validate({"epochs": 5, **settings}).resolve(given, MACHINE, share)
        return made, made.stage.forecast(given, MACHINE, share)

    held = [planned(gib / 100)[0].stage.hold for gib in range(200, 60, -4)]
    assert list(dict.fromkeys(held)) == ["fp32", "bf16", "int8", "disk"]
    narrow, cost = planned(1.1)
    assert narrow.stage.hold != "fp32" and "longer" in narrow.reasons["hold"]
    assert cost.cost.peak_bytes <= 1.1 * 2**30 < planned(4)[1].cost.peak_bytes
    every, third = planned(4)[1], planned(4, method={"lora": {"top": "third"}})[1]
    assert third.cost.seconds < 0.8 * every.cost.seconds
    kept = third.disk_bytes - 36 * third.facts["trained_parameters"]
    alone = every.disk_bytes - 36 * every.facts["trained_parameters"]
    assert alone == 0 < kept, "the outputs of the lower layers lie on disk"
    assert planned(4, hold="disk")[1].disk_bytes > every.disk_bytes + spec.matrix_parameters()
    for settings in ({"method": "full"}, {"method": {"lora": {"dora": True}}}, {"merge": True}):
        with pytest.raises(RecipeError, match="fewer bits"):
            planned(4, hold="bf16", **settings)
        assert planned(1.2, **settings)[0].stage.hold == "fp32"


UNKNOWN = {**GPT2, "shape": {**GPT2["shape"], "kind": "xlm"}}


@pytest.mark.parametrize("model", [UNKNOWN, {**GPT2, "shape": None}], ids=["kind", "shape"])
def test_layers_that_are_not_understood_are_refused_when_planned(
    examples: Artifact, model: dict[str, Any]
) -> None:
    given = {"examples": examples.facts, "model": model}
    asked: tuple[dict[str, Any], ...] = (
        {"method": {"lora": {"top": "third"}}}, {"method": "freeze"}, {"hold": "bf16"}, {"recompute": True},
        {"method": {"peft": {"tuner": "loha", "top": 2}}},
    )  # fmt: skip
    for settings in asked:
        with pytest.raises(RecipeError, match="layers of this kind of model are not understood"):
            Finetune.model_validate(settings).resolve(given, MACHINE, Share())
    small = Share(memory_bytes=2**30)
    stage = Finetune().resolve(given, MACHINE, small).stage
    assert stage.hold == "fp32" and stage.recompute is False


def test_a_tuner_of_peft_in_upper_layers(
    examples: Artifact, models: dict[str, Artifact], tmp_path: Path
) -> None:
    method = {"peft": {"tuner": "loha", "settings": {"r": 4, "target_modules": ["q_proj"]}, "top": 2}}
    made, facts, _ = run(examples, models["mistral"], tmp_path, steps=3, method=method)
    config = json.loads((made.out / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == [f"model.layers.{n}.self_attn.q_proj" for n in (1, 2)]
    decoder = Foreign(theirs(models["mistral"].path), 96)
    assert put_on(decoder, made.out).tuner is not None and facts["trained_parameters"]


def test_every_row_of_an_epoch_is_kept_once(examples: Artifact, models: dict[str, Artifact]) -> None:
    rows = render_rows(examples.path, models["gpt2"].path, context=96).train
    sampler = RowSampler(rows, batch=4, micro=10**6)
    parts = [part for _ in range(-(-len(rows) // 4) + 1) for part in sampler.take().parts]
    new = [row for part in parts for row, again in zip(part.rows, part.again, strict=True) if not again]
    assert sorted(new) == list(range(len(rows)))
    assert Kind.MODEL == models["gpt2"].kind


def test_rows_of_like_length_go_together(examples: Artifact, models: dict[str, Artifact]) -> None:
    """The same rows with less padding: a step's loss stays what it is."""
    rows = render_rows(examples.path, models["gpt2"].path, context=96).train
    packed: Any = ForeignPacked(Foreign(theirs(models["gpt2"].path), 96))
    taken, padded, losses = [], [], []
    for by_length in (False, True):
        step = RowSampler(rows, batch=12, micro=120, by_length=by_length).take()
        parts = list(step.parts)
        assert len(parts) > 2
        taken.append(sorted(row for part in parts for row in part.rows))
        sizes = [[rows.inputs(row) for row in part.rows] for part in parts]
        padded.append(sum(max(size) * len(size) for size in sizes))
        losses.append(sum(float(TrainedTokens(packed)(part, 1 / step.count)) for part in parts))
    assert taken[0] == taken[1] and padded[1] < padded[0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
