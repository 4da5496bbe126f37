"""Packed documents with 16-bit products against float32 ones: loss, gradients, and how weights are held."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kogata.engine.finetune import adapter, freeze, full, ia3, lora
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import Rows
from kogata.nn.decoder import Decoder
from kogata.nn.held import Bfloat16, HeldLinear
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden
from kogata.nn.products import rounded_products
from kogata.nn.spec import ModelSpec

METHODS = {"lora": lora, "full": full, "ia3": ia3, "adapter": adapter, "freeze": freeze}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    torch.set_num_threads(1)
    built = Kernels.build()
    if built is None:
        pytest.skip("no C compiler")
    return built


def decoder(family: str, held: bool = False) -> Decoder:
    """Makes a decoder whose weights have 16 bits, as most checkpoints'; `held`: they lie so in memory."""
    sizes = {"vocab_size": 61, "layers": 3, "width": 32, "heads": 4, "kv_heads": 2, "ffn_width": 48}
    made = Decoder(ModelSpec.of_family(family, **sizes, context=32, tied=True), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.15)
            weight.copy_(weight.bfloat16())
    if held:
        for block in made.layers():
            for part in (block.mixer, block.ffn):
                for name, layer in list(part.named_children()):
                    if type(layer) is torch.nn.Linear:
                        hold = Bfloat16(layer.weight)
                        sides = layer.in_features, layer.out_features
                        setattr(part, name, HeldLinear(hold, layer.bias, *sides))
    return made


def rows(shared: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    beginning = torch.randint(1, 61, (shared,), generator=generator).tolist()
    rendered = []
    for length in (9, 5, 14, 7):
        ids = torch.randint(1, 61, (length,), generator=generator).tolist()
        rendered.append((beginning + ids, [0.0] * (shared + 3) + [1.0] * (length - 3)))
    return Rows(rendered)


def tuned(made: Decoder, name: str) -> Any:
    tuning = METHODS[name].apply(made, METHODS[name].Settings(), 0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, weight in tuning.named():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return tuning


def passed(
    made: Decoder, tuning: Any, kernels: Kernels | None, narrow: bool, shared: int = 0, again: bool = False
) -> tuple[float, torch.Tensor]:
    """Gives the loss and all gradients end to end."""
    for _, weight in tuning.named():
        weight.grad = None
    with rounded_products(narrow):
        hidden = PackedHidden(made, kernels, recompute=again)
        loss = TrainedTokens(hidden, tuning.first)(rows(shared).pack([0, 1, 2, 3]), 0.1)
        loss.backward()
    return float(loss.detach()), torch.cat([weight.grad.flatten() for _, weight in tuning.named()])


@pytest.mark.parametrize("shared", [0, 9])
@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2", "arcee"])
@pytest.mark.parametrize("method", METHODS)
def test_rounded_is_close_to_float32_and_leaves_it_as_it_was(
    family: str, method: str, shared: int, kernels: Kernels
) -> None:
    made = decoder(family)
    tuning = tuned(made, method)
    wanted, whole = passed(made, tuning, kernels, False, shared)
    loss, found = passed(made, tuning, kernels, True, shared)
    assert loss == pytest.approx(wanted, rel=1e-2) and not torch.equal(found, whole)
    assert float(torch.cosine_similarity(found, whole, 0)) > 0.99
    assert found.norm() == pytest.approx(float(whole.norm()), rel=0.05)
    after, same = passed(made, tuning, kernels, False, shared)
    assert after == wanted and torch.equal(same, whole), "float32 is what it was before"


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter"])
def test_weights_held_in_16_bits_are_the_same_products(method: str, kernels: Kernels) -> None:
    found = []
    for held in (False, True):
        made = decoder("llama", held)
        found.append(passed(made, tuned(made, method), kernels, True))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_computed_again_it_is_the_same(method: str, kernels: Kernels) -> None:
    made = decoder("qwen3")
    tuning = tuned(made, method)
    kept = passed(made, tuning, kernels, True, 9)
    again = passed(made, tuning, kernels, True, 9, again=True)
    assert kept[0] == again[0] and torch.equal(kept[1], again[1])
