"""Any tuner of peft beside our layers: saved, peft computes the same; read again and merged, so do we."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_models import small_spec, write_small_model

from kogata.core.errors import DataError, RecipeError
from kogata.engine.adapters import can_merge, merge_checked, put_on
from kogata.engine.convert import load_decoder
from kogata.engine.finetune import peft as method
from kogata.engine.finetune._common import targets
from kogata.nn.packed import PackedHidden

library = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.arange(2, 26)[None]
CASES: list[dict[str, Any]] = [
    {"tuner": "miss", "settings": {"r": 4}},
    {"tuner": "loha", "settings": {"r": 4}},
    {"tuner": "lokr", "settings": {"r": 4}, "top": 2},
    {"tuner": "oft", "settings": {"oft_block_size": 16, "r": 0}},
    {"tuner": "hra", "settings": {"r": 4, "target_modules": ["q_proj", "down_proj"]}},
    {"tuner": "vera", "settings": {"r": 8, "target_modules": ["q_proj", "o_proj"]}},
    {"tuner": "fourierft", "settings": {"n_frequency": 40}},
    {"tuner": "road", "settings": {"group_size": 16}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("models") / "llama"
    write_small_model(place, small_spec("llama", tied=True))
    return place


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["tuner"])
def test_peft_computes_the_same_and_so_do_we(folder: Path, case: dict[str, Any], tmp_path: Path) -> None:
    decoder = load_decoder(folder)
    plain = decoder(IDS).detach()
    tuning = method.apply(decoder, method.Settings(**case), 0)
    packed = PackedHidden(decoder, None)
    packed(IDS[0], [10, 24]).square().sum().backward()
    with_gradient = [weight for _, weight in tuning.named() if weight.grad is not None]
    assert with_gradient and all(weight.requires_grad for _, weight in tuning.named())
    assert sum(weight.requires_grad for weight in decoder.parameters()) == len(tuning.named())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
        ours = decoder(IDS)
        assert tuning.save is not None
        tuning.save(tmp_path, str(folder))
        loaded = library.PeftModel.from_pretrained(theirs(folder), tmp_path).eval()(input_ids=IDS).logits
        again = put_on(load_decoder(folder), tmp_path)
        size = float(ours.abs().max())
        assert float((ours - plain).abs().max()) > 1e-3 * size
        assert float((loaded - ours).abs().max()) < 1e-4 * size
        assert float((again(IDS) - ours).abs().max()) < 1e-5 * size
        assert can_merge(again) and merge_checked(again, IDS) < 1e-4
    if case.get("top"):
        assert tuning.first == 2 and all(
            type(t.module) is torch.nn.Linear for t in targets(decoder) if t.layer < 2
        )


def test_the_same_seed_begins_the_same(folder: Path) -> None:
    def begun(seed: int) -> torch.Tensor:
        tuning = method.apply(load_decoder(folder), method.Settings(tuner="loha"), seed)
        return torch.cat([weight.detach().flatten() for _, weight in tuning.named()])

    assert torch.equal(begun(1), begun(1)) and not torch.equal(begun(1), begun(2))


def test_wrong_tuners_and_settings_are_named(folder: Path) -> None:
    for tuner, words in {
        "lora": "method: lora", "prefix_tuning": "method: prefix", "adalora": "between steps",
        "ln_tuning": "linear layers", "lohaa": "did you mean 'loha'",
    }.items():  # fmt: skip
        with pytest.raises(ValidationError, match=words):
            method.Settings(tuner=tuner)
    for settings, words in (
        ({"rank": 4}, "no setting 'rank'"), ({"r": 4, "target_modules": ["qq_proj"]}, "peft refuses"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=words):
            method.apply(load_decoder(folder), method.Settings(tuner="loha", settings=settings), 0)
    assert "miss" in method.tuners() and "lora" not in method.tuners()


def test_an_adapter_for_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    tuning = method.apply(load_decoder(folder), method.Settings(tuner="loha", settings={"r": 2}), 0)
    assert tuning.save is not None
    tuning.save(tmp_path, "base")
    wider = tmp_path / "wider"
    write_small_model(wider, small_spec("llama", width=32))
    with pytest.raises(DataError, match="another model"):
        put_on(load_decoder(wider), tmp_path)
