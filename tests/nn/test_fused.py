"""Fused blocks equal the decoder's own, loss and gradients, for every family that fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kogata.engine.costs import fuses
from kogata.engine.optimisers import hold_gains
from kogata.nn import fused
from kogata.nn.decoder import Decoder
from kogata.nn.families import FAMILY
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.products import rounded_products
from kogata.nn.spec import ModelSpec


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    built = Kernels.build()
    if built is None:
        pytest.skip("no C compiler")
    return built


def decoder(family: str, **more: Any) -> Decoder:
    sizes = {
        "vocab_size": 91,
        "layers": 2,
        "width": 32,
        "heads": 4,
        "ffn_width": 48,
        "context": 24,
        "tied": False,
    }
    made = Decoder(ModelSpec.of_family(family, **{**sizes, **more}), seed=3)
    hold_gains(made)
    torch.manual_seed(0)
    with torch.no_grad():
        for block in made.layers():
            block.mixer.out.weight.normal_(0, 0.1)
            for name in block.ffn.outputs:
                getattr(block.ffn, name).weight.normal_(0, 0.1)
            if getattr(block.mixer, "q_norm", None) is not None:
                block.mixer.q_norm.weight.uniform_(0.5, 2)
        made.embed.weight.normal_()
    return made


def loss_and_gradients(made: Decoder, hidden: Any, ids: torch.Tensor, kernels: Kernels) -> tuple[Any, Any]:
    made.zero_grad(set_to_none=True)
    targets = ids.roll(1, 1)
    loss = linear_cross_entropy(
        hidden(ids), made.head_weight, targets, scale=1 / ids.numel(), kernels=kernels
    )
    loss.backward()
    grads = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(grads)


CASES = [
    ("qwen3", {}),
    ("qwen3", {"kv_heads": 2}),
    ("llama", {"kv_heads": 1, "tied": True}),
    ("arcee", {}),
    ("smollm3", {"rope_layers": (True, False)}),
]


@pytest.mark.parametrize(("family", "more"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_equals_the_decoder(family: str, more: dict[str, Any], threads: int, kernels: Kernels) -> None:
    made = decoder(family, **more)
    assert fused.fits(made)
    ids = torch.randint(0, 91, (3, 24))
    targets = torch.randint(0, 91, (3, 24))
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for hidden, built in ((made.hidden, None), (fused.FusedHidden(made, kernels), kernels)):
            made.zero_grad(set_to_none=True)
            loss = linear_cross_entropy(hidden(ids), made.head_weight, targets, kernels=built)
            loss.backward()
            grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
            found.append((loss.detach(), grads))
    finally:
        torch.set_num_threads(before)
    assert found[0][1].keys() == found[1][1].keys()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_what_it_cannot_compute_does_not_fit() -> None:
    assert not fused.fits(decoder("qwen2"))
    trained = decoder("qwen3")
    trained.layers()[0].ffn_norm.weight.requires_grad_(True)
    assert not fused.fits(trained)
    wrapped = decoder("qwen3")
    wrapped.layers()[0].ffn.down.register_forward_hook(lambda *_: None)
    assert not fused.fits(wrapped)


def test_without_a_compiler_there_are_no_kernels() -> None:
    assert Kernels.build("no-such-compiler") is None


@pytest.mark.parametrize("family", FAMILY)
def test_plans_know_what_is_fused(family: str) -> None:
    changes: list[dict[str, Any]] = [{}]
    if family == "kogata":
        loops = {"times": 1, "loops": 2, "rank": 0}
        changes += [{"sharing": loops}, {"sharing": {**loops, "rank": 2}}]
        changes += [{"ffn": "experts"}, {"ffn": "geglu"}]
    for change in changes:
        made = decoder(family, **change)
        assert fused.fits(made) == fuses(made.spec), (family, change)


@pytest.mark.parametrize("more", [{}, {"kv_heads": 2}, {"context": 600}])
def test_rounded_products_give_nearly_the_same(more: dict[str, Any], kernels: Kernels) -> None:
    made = decoder("qwen3", **more)
    hidden = fused.FusedHidden(made, kernels)
    torch.manual_seed(2)
    ids = torch.randint(0, 91, (2, more.get("context", 24)))
    whole, wide = loss_and_gradients(made, hidden, ids, kernels)
    with rounded_products():
        rounded, narrow = loss_and_gradients(made, hidden, ids, kernels)
        again, same = loss_and_gradients(made, hidden, ids, kernels)
    assert rounded == pytest.approx(whole, rel=0.01) and rounded != whole
    assert torch.cosine_similarity(wide, narrow, 0) > 0.999
    assert again == rounded and torch.equal(same, narrow)
