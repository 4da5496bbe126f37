"""Experts: a step weighs its balance the same however it is cut, and every weight has a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kogata.core.errors import RecipeError
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import split_parameters
from kogata.engine.sampler import Batch
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

SIZES: dict[str, Any] = {"vocab_size": 31, "layers": 2, "width": 16, "heads": 2, "ffn_width": 24}
IDS = torch.randint(0, 31, (8, 13), generator=torch.Generator().manual_seed(0))


def make(**settings: Any) -> Decoder:
    torch.set_num_threads(1)
    spec = ModelSpec.of_family("kogata", **SIZES, ffn="experts", ffn_settings={"count": 3, **settings})
    decoder = Decoder(spec, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return decoder


def gradients(decoder: Decoder, parts: int) -> list[torch.Tensor]:
    decoder.zero_grad()
    objective = LanguageModelling(decoder)
    for rows in IDS.chunk(parts):
        objective(Batch(inputs=rows[:, :-1], targets=rows[:, 1:]), 1 / (8 * 12)).backward()
    found = [parameter.grad for parameter in decoder.parameters()]
    assert all(grad is not None for grad in found)
    return [grad.clone() for grad in found if grad is not None]


@pytest.mark.parametrize("top", [1, 2])
def test_parts_add_up_to_the_whole_step(top: int) -> None:
    decoder = make(top=top, balance=3.0)
    whole = gradients(decoder, 1)
    for parts in (2, 8):
        for a, b in zip(whole, gradients(decoder, parts), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    without = gradients(make(top=top, balance=0.0), 1)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, without, strict=True)) > 0.01


def test_the_balance_spreads_tokens() -> None:
    decoder = make(balance=1.0)
    router = decoder.layers()[0].ffn.router
    x = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(2)) + 1.0

    def loads() -> torch.Tensor:
        with torch.no_grad():
            return torch.bincount(router(x[0]).argmax(-1), minlength=3) / 64

    with torch.no_grad():
        router.weight[0] += 0.1
    before = loads()
    for _ in range(60):
        decoder.zero_grad()
        (0.0 * decoder.layers()[0].ffn(x).sum()).backward()
        with torch.no_grad():
            router.weight.sub_(0.3 * router.weight.grad)
    assert before.max() > 0.8 and loads().max() < 0.6


def test_an_expert_without_tokens_has_a_gradient_of_zeros() -> None:
    decoder = make()
    with torch.no_grad():
        for block in decoder.layers():
            block.ffn.router.weight.zero_()
    unused = decoder.layers()[0].ffn.experts[2]
    gradients(decoder, 1)
    assert unused.down.weight.grad is not None and not unused.down.weight.grad.any()


def test_gate_and_up_are_matrices_of_their_own() -> None:
    names = [matrix.name for matrix in split_parameters(make())[0]]
    assert names.count("blocks.1.ffn.experts.2.gate_up.weight") == 2


@pytest.mark.parametrize(
    ("settings", "message"), [({"top": 3}, "below count"), ({"kind": 1}, "count, top, balance")]
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match="model.ffn") as caught:
        make(**settings)
    assert message in str(caught.value)
