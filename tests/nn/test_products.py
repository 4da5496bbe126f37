"""Products of rounded factors: what is rounded, where, and that nothing is outside the block that asks."""

import os

import pytest
import torch

from kogata.engine.precision import products_in
from kogata.nn.products import NARROW, factor, product, rounded_products, rounds
from kogata.nn.shapes import KEPT_SHAPES


def test_factors_are_rounded_within_the_block_alone() -> None:
    x = torch.randn(4, 8)
    assert factor(x) is x and not rounds()
    with rounded_products():
        assert factor(x).dtype == NARROW and rounds(x)
        with rounded_products(False):
            assert factor(x) is x
        assert rounds()
    assert factor(x) is x


def test_a_product_is_float32_and_close_to_that_of_whole_factors() -> None:
    a, b = torch.randn(33, 64), torch.randn(64, 17)
    assert torch.equal(product(a, b), a @ b)
    with rounded_products():
        found = product(factor(a), factor(b))
    assert found.dtype == torch.float32
    gap = (found - a @ b).norm() / (a @ b).norm()
    assert 0 < gap < 0.01


def test_the_format_of_a_stage_decides() -> None:
    for precision, narrow in (("bf16", True), ("fp32", False)):
        with products_in(precision):
            assert rounds() is narrow
    assert not rounds()


def test_the_code_of_few_shapes_is_kept_unless_the_user_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    with rounded_products():
        assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    with rounded_products(False):
        assert name not in os.environ
    with rounded_products():
        assert os.environ[name] == str(KEPT_SHAPES)
