"""Models that only transformers can build are fine-tuned in their own module, by the same stage and loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples
from small_models import write_small_tokenizer
from training_bench import Killed, TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine.adapters import fingerprint, merged_folder
from kogata.engine.finetune._foreign import stand_in
from kogata.engine.foreign import ForeignPacked, load_any
from kogata.engine.load import load_model
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rendered import render_rows
from kogata.stages.train.finetune import Finetune

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.arange(2, 26)[None]
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96},
    "gpt_neox": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 96, "tie_word_embeddings": False,
    },
}  # fmt: skip


def write(folder: Path, kind: str) -> Artifact:
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=320, bos_token_id=0, eos_token_id=0, **SIZES[kind]
    )
    peer = transformers.AutoModelForCausalLM.from_config(config).eval()
    peer.save_pretrained(folder)
    write_small_tokenizer(folder)
    facts = {
        "spec": None, "role": "decoder", "architecture": kind, "vocab_size": 320, "context": 96, "end_id": 0,
        "parameters": sum(weight.numel() for weight in peer.parameters()), "source": None,
    }  # fmt: skip
    return Artifact(kind=Kind.MODEL, digest=kind, path=folder, facts=facts)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_examples(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture(scope="module", params=list(SIZES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write(tmp_path_factory.mktemp("model") / request.param, request.param)


def run(examples: Artifact, model: Artifact, made: TrainingBench, **settings: Any) -> dict[str, Any]:
    stage = Finetune.model_validate({"steps": 6, "batch": 4, "lr": 5e-3, **settings})
    facts = {"examples": examples.facts, "model": model.facts}
    chosen = stage.resolve(facts, MACHINE, Share()).stage
    forecast = chosen.forecast(facts, MACHINE, Share())
    assert forecast.cost.seconds and forecast.cost.peak_bytes
    return chosen.run({"examples": examples, "model": model}, made)


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_loss_is_transformers_own(examples: Artifact, model: Artifact) -> None:
    rows = render_rows(examples.path, model.path, context=96).train
    decoder = load_any(model.path)
    chosen = [0, 3, 5, 6]
    batch = rows.pack(chosen)
    assert batch.shared > 0  # ChatML's beginning lies there once.
    count = float(batch.weights.sum())  # type: ignore[union-attr]
    ours = TrainedTokens(ForeignPacked(decoder))(batch, 1 / count)
    ours.backward()
    found = [weight.grad.clone() for weight in decoder.model.parameters()]
    total, peer = 0.0, theirs(model.path)
    for row in chosen:
        start, stop = int(rows.offsets[row]), int(rows.offsets[row + 1])
        ids = torch.from_numpy(rows.ids[start:stop].astype("int64"))[None]
        labels = ids.clone()
        labels[0, 1:][torch.from_numpy(rows.weights[start - row : stop - row - 1]) == 0] = -100
        labels[0, 0] = -100
        chances = peer(input_ids=ids).logits[0, :-1].log_softmax(-1)
        wanted = labels[0, 1:]
        total = total - chances[wanted >= 0, wanted[wanted >= 0]].sum()
    loss = total / count
    loss.backward()  # type: ignore[union-attr]
    assert float(ours) == pytest.approx(float(loss), abs=1e-5)
    for mine, weight in zip(found, peer.parameters(), strict=True):
        assert torch.allclose(mine, weight.grad, atol=1e-5)


LOHA = {"peft": {"tuner": "loha", "settings": {"r": 4}}}


@pytest.mark.parametrize("method", [{"lora": {"rank": 4}}, LOHA], ids=str)
def test_an_adapter_comes_out_that_everything_reads(
    examples: Artifact, model: Artifact, tmp_path: Path, method: Any
) -> None:
    import peft

    made = TrainingBench(tmp_path / "run", machine=MACHINE)
    if model.digest == "gpt2" and method == LOHA:
        # Its layers are no Linear but transformers' own Conv1D, which peft's loha does not know.
        with pytest.raises(RecipeError, match="peft refuses"):
            run(examples, model, made, method=method)
        return
    facts = run(examples, model, made, method=method)
    training = facts["training"]
    assert training["heldout"]["loss"] < training["heldout"]["loss_before"]
    assert training["base_fingerprint"] == fingerprint(load_any(model.path))
    assert training["general"]["bits_per_byte_before"] > 0
    with torch.no_grad():
        plain = theirs(model.path)(input_ids=IDS).logits
        loaded = peft.PeftModel.from_pretrained(theirs(model.path), made.out).eval()(input_ids=IDS).logits
        ours = load_model(model.path, adapter=made.out).decoder(IDS)
        merged_folder(model.path, made.out, tmp_path / "merged")
        merged = theirs(tmp_path / "merged")(input_ids=IDS).logits
    size = float(plain.abs().max())
    assert float((loaded - plain).abs().max()) > 1e-3 * size
    for found in (ours, merged):
        assert float((found - loaded).abs().max()) < 1e-4 * size
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_every_weight_and_a_merged_model(examples: Artifact, model: Artifact, tmp_path: Path) -> None:
    for name, settings in (("full", {"method": "full", "lr": 1e-3}), ("merged", {"merge": True})):
        made = TrainingBench(tmp_path / name, machine=MACHINE)
        facts = run(examples, model, made, **settings)
        assert facts["architecture"] == model.facts["architecture"]
        tuned = theirs(made.out)
        with torch.no_grad():
            gap = (tuned(input_ids=IDS).logits - theirs(model.path)(input_ids=IDS).logits).abs().max()
        assert float(gap) > 1e-3 and load_model(made.out).spec is None


def test_killed_and_resumed_is_the_same(examples: Artifact, tmp_path: Path) -> None:
    model = write(tmp_path / "model", "gpt2")
    settings = {"method": {"lora": {"rank": 2}}, "checkpoint_every": 2}
    whole, parts = (TrainingBench(tmp_path / name, machine=MACHINE) for name in ("whole", "parts"))
    facts = run(examples, model, whole, **settings)
    parts.kill_at = 4
    with pytest.raises(Killed):
        run(examples, model, parts, **settings)
    again = TrainingBench(tmp_path / "parts", machine=MACHINE)
    assert run(examples, model, again, **settings) == facts
    name = "adapter_model.safetensors"
    assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_what_needs_our_decoder_is_refused_before_anything_runs(examples: Artifact) -> None:
    facts: dict[str, Any] = {
        "spec": None, "role": "decoder", "architecture": "gpt2", "vocab_size": 320, "parameters": 10**6,
    }  # fmt: skip
    given = {"examples": examples.facts, "model": facts}
    for method in ("ia3", "sparse", {"lora": {"init": "pissa"}}):
        with pytest.raises(RecipeError, match="only transformers can build"):
            Finetune.model_validate({"method": method}).resolve(given, MACHINE, Share())
    given["model"] = {**facts, "role": "encoder"}
    with pytest.raises(RecipeError, match="train.classify"):
        Finetune().resolve(given, MACHINE, Share())


@pytest.mark.parametrize("parameters", [10**6, 135 * 10**6, 10**9])
def test_the_stand_in_has_about_as_many_weights(parameters: int) -> None:
    spec = stand_in({"vocab_size": 5000, "parameters": parameters})
    assert 0.6 < spec.parameters() / parameters < 1.7
