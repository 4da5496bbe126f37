"""In which number format matrix products are computed. Imports no torch: plans use it.

Weights, gradients, averages, norms and losses are float32 in each of them. `bf16` rounds the two factors of
each product to 16 bits and adds up in 32, on processors that multiply such numbers; elsewhere it would be
hundreds of times slower, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kogata.core.amounts import format_count
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine

PAYS_FROM = 1.3
"""Times the rate of float32 from which on it is taken: below it rounding is not worth it."""


def choose(asked: str, machine: Machine, where: str, *, proven: bool = True) -> tuple[str, str]:
    """Gives the format of products and, where it was left open, the reason.

    Args:
        asked: `auto`, `fp32` or `bf16`.
        machine: as measured.
        where: names the stage in a refusal.
        proven: whether it was measured what bf16 does to the stage's quality; else it is taken if asked.

    Raises:
        RecipeError: `bf16` on a computer that has no such products.
    """
    if machine.device == "cuda":
        narrow = "a GPU computes 16-bit products many times as fast; weights and sums stay float32"
        return ("bf16", narrow) if asked == "auto" else (asked, "")
    if asked == "bf16" and not machine.bf16_flops:
        raise RecipeError(
            "this computer has no fast 16-bit products",
            where=f"{where}.precision",
            found=f"bf16 on {machine.isa or machine.device}",
            expected="a processor with avx512_bf16 or amx_bf16",
            remedy="precision: auto, or fp32",
        )
    if asked != "auto":
        return asked, ""
    rate = machine.gemm_flops or 0.0
    if not machine.bf16_flops:
        return "fp32", "this computer has no fast 16-bit products"
    if not proven:
        return "fp32", "what products in bf16 do to quality here is not measured yet; `bf16` takes them"
    told = f"{format_count(machine.bf16_flops)}FLOP/s in bf16, {format_count(rate)}FLOP/s in fp32"
    return ("bf16" if machine.bf16_flops >= PAYS_FROM * rate else "fp32"), f"products here run at {told}"


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Computes the matrix products of a `with` block in this format.

    Those of `nn/products.py` round their factors once for all uses; any others of torch do it on the way.
    """
    import torch

    from kogata.nn.products import rounded_products

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "bf16" else "highest")
    try:
        with rounded_products(precision == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
