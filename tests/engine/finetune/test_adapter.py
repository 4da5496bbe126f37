"""Bottleneck adapters: nothing changes before training, saved and read alike, merging is refused in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_bench import MACHINE, write_examples, write_model
from small_models import random_decoder, small_spec
from training_bench import TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import DataError, RecipeError, Refused
from kogata.core.stage import Share
from kogata.engine.adapters import merge, put_on
from kogata.engine.finetune import adapter
from kogata.engine.rows import Rows
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden
from kogata.stages.export import Export
from kogata.stages.train.finetune import Finetune

IDS = torch.arange(2, 26)[None]


@pytest.fixture(scope="module")
def kernels() -> Kernels | None:
    return Kernels.build()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, kernels: Kernels | None) -> None:
    """Compiles the kernels once for all tests here."""
    torch.set_num_threads(1)
    monkeypatch.setattr(Kernels, "build", lambda: kernels)


def tuned(form: Any, **more: Any) -> tuple[Any, Any]:
    decoder = random_decoder(small_spec("llama", layers=2, tied=True))
    tuning = adapter.apply(decoder, adapter.Settings(form=form, size=8, **more), 0)
    return decoder, tuning


@pytest.mark.parametrize("form", ["behind", "beside"])
def test_without_effect_first_and_saved_as_it_is(form: str, tmp_path: Path) -> None:
    base = random_decoder(small_spec("llama", layers=2, tied=True))
    decoder, tuning = tuned(form)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        plain = base(IDS)
        assert torch.equal(decoder(IDS), plain)
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
        changed = decoder(IDS)
        assert float((changed - plain).abs().max()) > 0.01
        tuning.save(tmp_path, "base")
        assert torch.equal(put_on(base, tmp_path)(IDS), changed)
    settings = adapter.Settings(form=form, size=8)  # type: ignore[arg-type]
    assert adapter.work(decoder.spec, settings).trained == sum(v.numel() for _, v in tuning.named())
    with pytest.raises(Refused, match="cannot be written"):
        merge(decoder)
    with pytest.raises(DataError, match="for another model"):
        put_on(random_decoder(small_spec("llama", layers=2, width=32, heads=2, kv_heads=1)), tmp_path)


def test_what_is_added_is_as_the_papers_have_it() -> None:
    decoder, tuning = tuned("beside", top=1)
    named = dict(tuning.named())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in named.values():
            weight.add_(torch.randn(weight.shape, generator=generator))
    ffn, x = decoder.layers()[1].ffn, torch.randn(3, 64, generator=generator)
    down, up = (named[f"layers.1.mlp.adapter.{leaf}"] for leaf in ("down", "up"))
    d, u = (named[f"layers.1.mlp.adapter.{leaf}_bias"] for leaf in ("down", "up"))
    plain = ffn.down.base(torch.nn.functional.silu(ffn.gate_up.base(x)[:, :96]) * ffn.gate_up.base(x)[:, 96:])
    assert torch.allclose(ffn(x), plain + 4 * (torch.relu(x @ down.t() + d) @ up.t() + u), atol=1e-4)
    assert len(named) == 4 and tuning.first == 1


@pytest.mark.parametrize("form", ["behind", "beside"])
def test_packed_rows_give_the_same_gradients(form: str) -> None:
    """Through the kernels, with the last layer's unneeded rows left out and activations computed again."""
    from kogata.engine.objectives import TrainedTokens

    rows = Rows([(list(range(3, 15)), [0.0] * 6 + [1.0] * 6), (list(range(20, 30)), [0.0] * 5 + [1.0] * 5)])
    found = []
    for kernels, recompute in ((Kernels.build(), True), (None, False)):
        decoder, tuning = tuned(form)
        with torch.no_grad():
            for _, weight in tuning.named():
                weight.add_(0.02)
        hidden = PackedHidden(decoder, kernels, recompute=recompute)
        TrainedTokens(hidden, tuning.first)(rows.pack([0, 1]), 0.1).backward()
        found.append([weight.grad for _, weight in tuning.named()])
    for one, other in zip(*found, strict=True):
        assert float((one - other).abs().max()) <= 1e-4 * float(other.abs().max()) + 1e-7


@pytest.mark.parametrize(
    ("method", "gain", "reader"),
    [("adapter", 0.1, "kogata"), ({"prefix": {"tokens": 4, "text": "The sky"}}, 0.02, "peft")],
    ids=["adapter", "prefix"],
)
def test_run_evaluate_and_export(tmp_path: Path, method: Any, gain: float, reader: str) -> None:
    from export_bench import bench_in

    from kogata.stages.evaluate import Evaluate

    model, examples = write_model(tmp_path / "m"), write_examples(tmp_path / "e")
    stage = Finetune.model_validate({"method": method, "lr": 0.02, "batch": 4, "steps": 12, "hold": "bf16"})
    facts = {"examples": examples.facts, "model": {**model.facts, "digest": model.digest}}
    made: Any = stage.resolve(facts, MACHINE, Share()).stage
    planned = made.forecast(facts, MACHINE, Share()).facts
    bench = TrainingBench(tmp_path / "run", machine=MACHINE)
    found = made.run({"examples": examples, "model": model}, bench)
    assert found["trained_parameters"] == planned["trained_parameters"]
    given = Artifact(kind=Kind.ADAPTER, digest="a", path=bench.out, facts=found)
    for name in ("scores", "bundle"):
        (tmp_path / name).mkdir()
    scored = Evaluate.model_validate({"window": 64, "minimal_pairs": False, "sample_tokens": 2}).run(
        {"model": model, "adapter": given, "examples": examples, "corpus": None},
        bench_in(tmp_path / "scores"),
    )["examples"]
    assert scored["loss_nats_per_token"] < scored["base_loss_nats_per_token"] - gain
    assert scored["loss_nats_per_token"] == pytest.approx(found["training"]["heldout"]["loss"], abs=2e-2)
    with pytest.raises(RecipeError, match="formats: \\[\\]"):
        Export().resolve({**facts, "corpus": None, "adapter": planned}, MACHINE, Share())
    Export(formats=[]).resolve({**facts, "corpus": None, "adapter": planned}, MACHINE, Share())
    bundle = Export(formats=[]).run(
        {"model": model, "adapter": given, "examples": examples, "corpus": None},
        bench_in(tmp_path / "bundle"),
    )
    assert list(bundle["files"]) == ["adapter"] and bundle["files"]["adapter"]["runtime"] == reader
    assert (tmp_path / "bundle" / "adapter" / "adapter_config.json").is_file()
    with pytest.raises(RecipeError, match="leave `merge` out"):
        stage.model_copy(update={"merge": True, "hold": "auto"}).resolve(facts, MACHINE, Share())
