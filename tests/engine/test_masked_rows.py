"""Rows read both ways: what they see and what not, what counts, kernels, edges, kills, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from training_bench import MACHINE, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine import techniques
from kogata.engine.masked_rows import MaskedRows
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import hold_gains
from kogata.engine.sampler import Batch, RampSampler, WindowSampler
from kogata.engine.techniques.masked_rows import Masking, Settings
from kogata.nn.decoder import Decoder
from kogata.nn.fused import FusedHidden
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain
from tests.engine.test_parallel import run as processes

TINY = {"model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}, "context": 16, "batch": 64}
HALF = {"masked_rows": {"share": 0.5}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tokens(tmp_path_factory.mktemp("tokens"))


def run(text: Artifact, bench: TrainingBench, **settings: Any) -> dict[str, Any]:
    facts = {"tokens": text.facts, "model": None}
    stage = Pretrain(**{**TINY, **settings}).resolve(facts, bench.machine, bench.share).stage
    return stage.run({"tokens": text, "model": None}, bench)


def weights(bench: TrainingBench) -> bytes:
    return (bench.out / "model.safetensors").read_bytes()


def windows(batch: int = 8, micro: int = 3) -> WindowSampler:
    ids = np.arange(1, 1001, dtype=np.uint16)
    return WindowSampler(ids, np.array([0, 400, 1000]), context=10, batch=batch, micro=micro, seed=2)


def masking(inner: Any = None, **more: Any) -> MaskedRows:
    settings = {"share": 0.5, "rate": 0.3, "until": 1.0, "seed": 4, "stand_in": 0, **more}
    return MaskedRows(inner or windows(), **settings)


def decoder_of(family: str = "qwen3", **more: Any) -> Decoder:
    sizes = {"vocab_size": 61, "layers": 2, "width": 16, "heads": 2, "ffn_width": 32, "context": 16}
    decoder = Decoder(ModelSpec.of_family(family, **{**sizes, **more}), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in decoder.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            weight.data.normal_(0, 0.3, generator=generator)
    decoder.mask = nn.Parameter(torch.randn(16, generator=generator))
    return decoder


def test_hidden_tokens_are_predicted_one_place_before() -> None:
    plain, sampler = windows(), masking()
    for _ in range(5):
        rows = torch.cat([torch.cat([p.inputs[:, :1], p.targets], 1) for p in plain.take().parts])
        batch = sampler.take()
        assert batch.count == batch.tokens == 80
        seen, counted = [], 0.0
        for part in batch.parts:
            assert len(part.inputs) <= 3
            seen += torch.cat([part.inputs[:, :1], part.targets], 1).tolist()
            if part.masked is None:
                assert part.weights is None and torch.equal(part.inputs[:, 1:], part.targets[:, :-1])
                counted += part.targets.numel()
                continue
            assert part.weights is not None
            assert part.masked.sum(1).tolist() == [3] * len(part.inputs) and not part.masked[:, 0].any()
            hidden = part.masked[:, 1:]
            assert torch.equal(part.weights[:, :-1] > 0, hidden) and not part.weights[:, -1].any()
            assert (part.inputs[part.masked] == 0).all()
            open_ = ~part.masked[:, 1:]
            assert torch.equal(part.inputs[:, 1:][open_], part.targets[:, :-1][open_])
            counted += float(part.weights.sum())
        # The same rows as ever, each counting as much as any other.
        assert sorted(seen) == sorted(rows.tolist()) and counted == pytest.approx(80)


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.9])
def test_the_share_is_kept_to_a_row(share: float) -> None:
    sampler, chosen, rows = masking(share=share), 0, 0
    for _ in range(25):
        for part in sampler.take().parts:
            chosen += 0 if part.masked is None else len(part.inputs)
            rows += len(part.inputs)
        assert abs(chosen - share * rows) < 1 + 1e-6
    assert rows == 200


def test_it_is_the_same_for_any_number_of_processes_and_after_a_resume() -> None:
    def rows(parts: Any) -> list[Any]:
        return sorted(
            (part.inputs[i].tolist(), part.masked is not None)
            for part in parts
            for i in range(len(part.inputs))
        )

    whole = masking()
    for _ in range(3):
        state = json.loads(json.dumps(whole.state()))
        expected = rows(whole.take().parts)
        for world in (1, 2, 3):
            found = []
            for rank in range(world):
                one = masking()
                one.load(state)
                found += list(one.take(rank, world).parts)
            assert rows(found) == expected


def test_it_ends_and_changes_its_size() -> None:
    sampler = masking(RampSampler([windows()], []), until=0.5)
    sampler.resize(2.0)
    assert sampler.take(progress=0.0).tokens == 160 and sampler.row()["masked_part"] == 0.5
    assert all(part.masked is None for part in sampler.take(progress=0.5).parts)
    assert sampler.row()["masked_part"] == 0.0 and sampler.epochs == pytest.approx(0.32)


def test_a_hidden_token_is_seen_by_nobody_and_the_others_by_all() -> None:
    decoder = decoder_of()
    ids = torch.randint(1, 61, (1, 16))
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, [5, 9]] = True
    before = decoder.hidden(ids, masked=masked)
    other = ids.clone()
    other[masked] = (other[masked] + 7) % 61
    assert torch.equal(decoder.hidden(other, masked=masked), before)
    for changed in (0, 15):  # The first and the last are seen everywhere.
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 7) % 61
        assert ((decoder.hidden(other, masked=masked) - before).abs().amax(2) > 1e-7).all()
    # Rows read forwards see nothing of what follows, by gradient.
    embedded: list[Tensor] = []
    hook = decoder.embed.register_forward_hook(
        lambda module, given, out: embedded.append(out.retain_grad() or out)
    )
    decoder.hidden(ids)[0, 6].sum().backward()
    assert embedded[-1].grad is not None
    assert embedded[-1].grad[0, 7:].abs().max() == 0 < embedded[-1].grad[0, :7].abs().amin(0).max()
    decoder.hidden(ids, masked=masked)[0, 6].sum().backward()
    grad = embedded[-1].grad
    assert grad is not None and decoder.mask is not None and decoder.mask.grad is not None
    assert grad[0][masked[0]].abs().max() == 0 and (grad[0][~masked[0]].abs().amax(1) > 0).all()
    hook.remove()


KINDS: list[dict[str, Any]] = [
    {},
    {"family": "llama", "kv_heads": 1},
    {"family": "arcee", "ffn": "relu2"},
    {"family": "kogata", "mixers": ("full", "reuse"), "mixer_settings": ({}, {})},
    {"family": "kogata", "additions": {"values": True, "ngrams": 64, "scales": True}},
    {"family": "kogata", "sharing": {"times": 2}},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())) or "qwen3")
def test_kernels_and_plain_torch_agree(kind: dict[str, Any]) -> None:
    kernels = Kernels.build()
    if kernels is None:
        pytest.skip("no C compiler")
    decoder = decoder_of(**kind)
    hold_gains(decoder)
    inputs, targets = torch.randint(1, 61, (2, 3, 16))
    masked = torch.rand(3, 16) < 0.3
    masked[:, 0] = False
    share = torch.zeros(3, 16)
    share[:, :-1] = masked[:, 1:].float()
    batch = Batch(inputs=inputs.masked_fill(masked, 0), targets=targets, weights=share, masked=masked)
    found = []
    for hidden in (None, FusedHidden(decoder, kernels)):
        decoder.zero_grad(set_to_none=True)
        loss = LanguageModelling(decoder, hidden)(batch, 0.1)
        loss.backward()
        grads = {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}
        assert "mask" in grads
        found.append((loss.detach(), grads))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_share_of_nothing_is_the_plain_training(tokens: Artifact, tmp_path: Path) -> None:
    benches = [TrainingBench(tmp_path / name) for name in ("plain", "none", "some")]
    run(tokens, benches[0], steps=8)
    run(tokens, benches[1], steps=8, techniques={"masked_rows": {"share": 0}})
    run(tokens, benches[2], steps=8, techniques=HALF)
    assert weights(benches[0]) == weights(benches[1]) != weights(benches[2])
    assert "masked_part" not in benches[1].rows[0] and benches[2].rows[0]["masked_part"] == 0.5


def test_what_is_kept_is_a_causal_model_without_a_mask(tokens: Artifact, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from kogata.engine.convert import load_decoder

    bench = TrainingBench(tmp_path)
    facts = run(tokens, bench, steps=12, techniques={**HALF, "average": {"share": 0.5}})
    assert not [name for name in load_file(bench.out / "model.safetensors") if "mask" in name]
    decoder = load_decoder(bench.out)
    assert decoder.mask is None and decoder.spec.parameters() == facts["parameters"]
    ids = torch.arange(1, 17)[None]
    theirs = AutoModelForCausalLM.from_pretrained(bench.out, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, decoder(ids), rtol=1e-4, atol=1e-4)


def test_it_learns_to_read_forwards_all_the_same(tmp_path: Path) -> None:
    text = make_tokens(tmp_path / "tokens", documents=40, length=600)
    found = []
    for chosen in (None, {"masked_rows": {"share": 0.5, "rate": 0.2}}):
        bench = TrainingBench(tmp_path / str(len(found)))
        run(text, bench, steps=150, techniques=chosen, batch=256, corpus_start=False)
        looks = [row["heldout_bits_per_byte"] for row in bench.rows if "heldout_bits_per_byte" in row]
        assert looks[-1] < 0.7 * looks[0]
        found.append(looks[-1])
    assert found[1] < 1.3 * found[0]


@pytest.mark.parametrize("kill_at", [3, 9])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_and_resumed_is_the_same(
    tokens: Artifact, tmp_path: Path, kill_at: int, optimizer: str
) -> None:
    chosen = {"masked_rows": {"share": 0.3, "until": 0.8}, "ngram_teacher": {}, "batch_warmup": {}}
    settings = {"steps": 12, "checkpoint_every": 2, "techniques": chosen, "optimizer": optimizer}
    whole = TrainingBench(tmp_path / "whole")
    run(tokens, whole, **settings)
    with pytest.raises(Killed):
        run(tokens, TrainingBench(tmp_path / "killed", kill_at=kill_at), **settings)
    again = TrainingBench(tmp_path / "killed")
    run(tokens, again, **settings)
    assert weights(again) == weights(whole)
    assert (again.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    (one,) = processes(tmp_path, 1, "adamw", HALF)
    first, second = processes(tmp_path, 2, "adamw", HALF)
    losses = first.pop("losses")
    second.pop("losses")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(losses, one.pop("losses"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first, one, rtol=2e-3, atol=2e-4)


def test_products_are_those_of_the_forecast(tokens: Artifact, tmp_path: Path) -> None:
    facts = {"tokens": tokens.facts, "model": None}
    found = []
    for chosen in (None, {"masked_rows": {"share": 0.5, "until": 0.5}}):
        bench = TrainingBench(tmp_path / str(len(found)))
        stage = Pretrain(**TINY, steps=8, techniques=chosen).resolve(facts, MACHINE, Share()).stage
        stage.run({"tokens": tokens, "model": None}, bench)
        forecast = stage.forecast(facts, MACHINE, Share()).cost
        assert forecast.flops == pytest.approx(bench.flops)
        found.append(bench.flops)
    assert found[1] != found[0]


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ({"pattern": ["window", "full"], "layers": 2}, "window"),
        ({"family": "gemma3", "layers": 2}, "window"),
        ({"family": "lfm2", "pattern": ["short_conv", "full"], "layers": 2}, "short_conv"),
    ],
)
def test_layers_that_cannot_are_refused_by_the_plan(
    tokens: Artifact, shape: dict[str, Any], found: str
) -> None:
    model = {**TINY["model"], **shape}
    facts = {"tokens": tokens.facts, "model": None}
    with pytest.raises(RecipeError, match="this model cannot have") as caught:
        Pretrain(**{**TINY, "model": model}, steps=3, techniques=HALF).resolve(facts, MACHINE, Share())
    assert found in str(caught.value.found) and "full attention" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"documents": "apart"}, "apart"),
        ({"curriculum": "length_buckets"}, "length_buckets"),
        ({"sampling": "loss"}, "loss"),
    ],
)
def test_courses_that_cannot_are_refused_by_the_plan(
    tokens: Artifact, more: dict[str, Any], found: str
) -> None:
    facts = {"tokens": tokens.facts, "model": None}
    with pytest.raises(RecipeError, match="this training cannot have") as caught:
        Pretrain(**TINY, steps=3, techniques=HALF, **more).resolve(facts, MACHINE, Share())
    assert found in str(caught.value.found)
    none = {"masked_rows": {"share": 0}}
    Pretrain(**TINY, steps=3, techniques=none, **more).resolve(facts, MACHINE, Share())


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"share": 1}, {"share": -0.1}, {"rate": 0}, {"rate": 1}, {"until": 0}, {"mask": 3}):
        with pytest.raises(ValidationError):
            Pretrain(techniques={"masked_rows": wrong})


def test_rows_without_a_length_are_refused() -> None:
    class Odd:
        pass

    class Supply:
        label = "train.pretrain"

    with pytest.raises(RecipeError, match="cannot be masked"):
        Masking(Settings(), decoder_of()).draw_from(Odd(), Supply())  # type: ignore[arg-type]


def test_plans_count_what_a_step_takes() -> None:
    sizes = {"vocab_size": 8192, "layers": 2, "width": 128, "heads": 2, "ffn_width": 352, "context": 256}
    spec = ModelSpec.of_family("qwen3", **sizes)
    # The head is most of such a model, and hidden tokens alone have need of it.
    assert techniques.cost_of({"masked_rows": Settings(share=0.5)}, spec) < 1
    small = ModelSpec.of_family("qwen3", **{**sizes, "vocab_size": 64})
    assert techniques.cost_of({"masked_rows": Settings(share=0.5)}, small) > 1
    assert techniques.cost_of({"masked_rows": Settings(share=0)}, spec) == 1
    assert techniques.work_of({"masked_rows": Settings(share=0.5)}, spec, 256) < 1
