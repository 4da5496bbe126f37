"""Layers of transformers' modules: found, left out, held narrower, computed again, with equal numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_foreign import small_config, write_foreign
from torch import Tensor, nn

from kogata.core.errors import DataError
from kogata.engine import base_model
from kogata.engine.adapters import fingerprint
from kogata.engine.base_model import load_base
from kogata.engine.foreign_held import bytes_of, load_held
from kogata.engine.foreign_shape import LAYERED, shape_of
from kogata.engine.layered import Layers
from kogata.engine.load import Foreign
from kogata.engine.streamed import Stream

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.arange(2, 26)[None]


OFTEN = ("gpt2", "gpt_neox", "phi", "gemma3_text", "qwen3", "qwen3_moe", "mistral", "bloom", "olmo", "falcon")
RARE = sorted(set(LAYERED) - set(OFTEN))


def as_fp32(folder: Path) -> Foreign:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Foreign(model.requires_grad_(False), 96)


def reach(decoder: Foreign) -> tuple[float, Tensor]:
    """Gives a sum over logits, and its gradient to what enters the model."""
    weight = decoder.model.get_input_embeddings().weight.requires_grad_(True)
    total = decoder.model(input_ids=IDS, use_cache=False).logits.float().logsumexp(-1).sum()
    (grad,) = torch.autograd.grad(total, weight)
    weight.requires_grad_(False)
    return float(total), grad


def in_form(folder: Path, hold: Any, recompute: bool) -> tuple[Foreign, str]:
    stream = Stream(folder / f"{hold}.bin") if hold == "disk" else None
    return load_held(folder, *base_model.tensor_reader(folder), hold, stream, recompute)


@pytest.mark.parametrize("kind", [*OFTEN, *(pytest.param(one, marks=pytest.mark.slow) for one in RARE)])
def test_every_kind_computes_the_same_in_every_form(kind: str, tmp_path: Path) -> None:
    model = write_foreign(tmp_path, kind)
    shape = model.facts["shape"]
    assert shape["kind"] == kind and (shape["layers"], shape["width"], shape["heads"]) == (3, 32, 2)
    plain = as_fp32(tmp_path)
    total, grad = reach(plain)
    mark, whole = fingerprint(plain), bytes_of(plain.model)
    layers = Layers(plain.model).check()
    assert len(layers) == 3 and layers.width == 32 and len(layers.behind()) in (0, 1, 2)
    assert len(layers.linear(2)) == len(layers.linear(0)) / 3 > 0 or kind.startswith("qwen2_moe")
    matrices = sum(
        weight.numel() for part in layers.modules for weight in part.parameters() if weight.dim() > 1
    )
    for hold, recompute, kept in (("bf16", False, 2), ("disk", True, 0)):
        held, found = in_form(tmp_path, hold, recompute)
        assert found == mark, "the fingerprint is of the weights in the file"
        same, gradient = reach(held)
        assert same == total and torch.equal(gradient, grad)
        assert whole - bytes_of(held.model) == pytest.approx((4 - kept) * matrices, abs=400)
    near, _ = in_form(tmp_path, "int8", False)
    assert bytes_of(near.model) < whole - 2.6 * matrices
    assert reach(near)[0] == pytest.approx(total, rel=1e-3)


def test_a_layer_that_needs_more_than_the_one_below_is_told(tmp_path: Path) -> None:
    write_foreign(tmp_path, "phi")
    model = as_fp32(tmp_path).model

    told: list[Tensor] = []

    class Tells(nn.Module):
        def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
            told.append(x)
            return x

    class Asks(nn.Module):
        def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
            return x + told.pop()

    layers = model.base_model.layers
    layers[0], layers[2] = Tells(), Asks()
    with pytest.raises(DataError, match="need more than what layer"):
        Layers(model).check()


@pytest.mark.parametrize("kind", ["openai-gpt", "xlm"])
def test_other_structures_are_refused(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(small_config(kind)).eval()
    with pytest.raises(DataError, match="layers of this model are not understood"):
        Layers(model).check()


def test_shapes_of_configs() -> None:
    assert shape_of({"model_type": "x", "hidden_size": 8}) is None
    odd = {"model_type": "x", "n_embd": 36, "n_layer": 2, "n_head": 4}
    assert shape_of(odd) is None, "no llama has heads of 9"
    found = shape_of({**odd, "n_embd": 32, "multi_query": True})
    assert found is not None and (found["kv_heads"], found["head_dim"], found["tied"]) == (1, 8, True)


def test_a_folder_is_read_in_a_form(tmp_path: Path) -> None:
    write_foreign(tmp_path, "gpt_neox")
    wide, mark = load_base(tmp_path, "fp32")
    narrow, again = load_base(tmp_path, "bf16")
    assert isinstance(narrow, Foreign) and mark == again and wide.layers is None
    assert len(narrow.layers) == 3
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no weights"):
        load_base(tmp_path, "bf16")
