"""Number formats of products: who gets bf16 and why, that it is refused, and where it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.engine import precision
from kogata.engine.costs import step_cost
from kogata.nn.spec import ModelSpec

PLAIN = Machine(cores=2, isa="avx2 fma", gemm_flops=2e11, gemm_small_flops=1.8e11, compiler=True)
HALF = replace(PLAIN, isa="avx2 fma avx512_bf16", bf16_flops=4e11)


def test_auto_takes_bf16_where_it_was_measured_to_be_clearly_faster() -> None:
    taken, reason = precision.choose("auto", HALF, "here")
    assert taken == "bf16" and "400GFLOP/s in bf16, 200GFLOP/s in fp32" in reason
    assert precision.choose("auto", replace(HALF, bf16_flops=2.5e11), "here")[0] == "fp32"
    assert precision.choose("auto", PLAIN, "here") == ("fp32", "this computer has no fast 16-bit products")


def test_what_was_not_measured_is_taken_only_if_asked() -> None:
    taken, reason = precision.choose("auto", HALF, "here", proven=False)
    assert taken == "fp32" and "not measured" in reason
    assert precision.choose("bf16", HALF, "here", proven=False) == ("bf16", "")


@pytest.mark.parametrize(("asked", "machine"), [("fp32", HALF), ("fp32", PLAIN), ("bf16", HALF)])
def test_what_is_asked_is_taken(asked: str, machine: Machine) -> None:
    assert precision.choose(asked, machine, "here") == (asked, "")


def test_bf16_is_refused_where_it_would_be_hundreds_of_times_slower() -> None:
    with pytest.raises(RecipeError, match="no fast 16-bit products") as caught:
        precision.choose("bf16", PLAIN, "train.pretrain")
    assert "train.pretrain.precision" in str(caught.value.where) and "fp32" in str(caught.value.remedy)


def test_products_are_set_for_a_block_and_set_back() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), precision.products_in("bf16"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise ZeroDivisionError
    with precision.products_in("fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == before


def test_a_graphics_card_has_them() -> None:
    card = Machine(device="cuda", gemm_flops=1e14)
    assert precision.choose("auto", card, "here")[0] == "bf16"
    assert precision.choose("fp32", card, "here") == ("fp32", "")


def test_a_step_takes_less_by_what_its_products_save() -> None:
    spec = ModelSpec.of_family(
        "qwen3", vocab_size=4096, layers=4, width=256, heads=4, kv_heads=4, ffn_width=688
    )
    plain, half = (
        step_cost(spec, HALF, batch=1024, context=256, muon=False, precision=name).seconds
        for name in ("fp32", "bf16")
    )
    assert 0.35 < half / plain < 0.7
    sizes: dict[str, int] = {"batch": 1024, "context": 256}
    assert step_cost(spec, PLAIN, **sizes, precision="bf16") == step_cost(spec, PLAIN, **sizes)
