"""Additions of our own family: they start as nothing, see no future, and kernels compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kogata.core.errors import RecipeError
from kogata.engine.convert import load_decoder, save_decoder
from kogata.engine.optimisers import build_optimiser, hold_gains
from kogata.nn import fused
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.packed import PackedHidden
from kogata.nn.spec import ModelSpec

ALL: dict[str, Any] = {"cap": 5.0, "scales": True, "values": True, "ngrams": 128}
PATTERN = {"mixers": ("short_conv", "full", "window"), "mixer_settings": ({}, {}, {"size": 6})}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"additions": {name: value}} for name, value in ALL.items()},
    "all": {"additions": ALL, "kv_heads": 2},
    "mixed": {"additions": ALL, **PATTERN},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def spec(**more: Any) -> ModelSpec:
    sizes = {"vocab_size": 61, "layers": 3, "width": 32, "heads": 4, "ffn_width": 48, "context": 24}
    return ModelSpec.of_family("kogata", **{**sizes, "tied": False, **more})


def decoder(case: str) -> Decoder:
    made = Decoder(spec(**CASES[case]), seed=3)
    hold_gains(made)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return made


IDS = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", CASES)
def test_no_token_sees_a_later_one(case: str) -> None:
    made = decoder(case)
    rows: list[torch.Tensor] = []
    handle = made.embed.register_forward_hook(
        lambda *given: rows.append(given[2].detach().requires_grad_()) or rows[-1]
    )
    made(IDS)[:, 9].sum().backward()
    handle.remove()
    grad = rows[0].grad
    assert grad is not None and grad[:, :10].abs().sum() > 0 and not grad[:, 10:].any()
    changed = IDS.clone()
    changed[:, 10:] = 7
    assert torch.equal(made(changed)[:, :10], made(IDS)[:, :10])


@pytest.mark.parametrize("case", CASES)
def test_cache_equals_recompute_and_documents_are_independent(case: str) -> None:
    made = decoder(case).eval()
    with torch.no_grad():
        whole = made.hidden(IDS)
        cache = made.new_cache(2, 24)
        parts = [made.hidden(IDS[:, a:b], cache=cache) for a, b in ((0, 10), (10, 11), (11, 24))]
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
        packed = made.hidden(IDS, documents=[[9, 24], [24]])
        torch.testing.assert_close(packed[0, 9:], made.hidden(IDS[:1, 9:])[0], rtol=1e-4, atol=1e-5)


def test_a_rewound_cache_knows_the_token_before() -> None:
    made = decoder("ngrams").eval()
    with torch.no_grad():
        cache = made.new_cache(2, 24)
        made.hidden(IDS[:, :20], cache=cache)
        cache.rewind(12)
        again = made.hidden(IDS[:, 12:], cache=cache)
        torch.testing.assert_close(again, made.hidden(IDS)[:, 12:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_kernels_compute_the_same(case: str) -> None:
    kernels = Kernels.build()
    if kernels is None:
        pytest.skip("no C compiler")
    made = decoder(case)
    targets = IDS.roll(-1, 1)
    cap, found = made.cap, []
    logits = made(IDS).flatten(0, 1)
    F.cross_entropy(logits, targets.flatten()).backward()
    plain = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    assert "all" not in case or {"added.scales", "added.ngrams", "added.values.0"} <= set(plain)
    for hidden, built in ((made.hidden, None), (fused.FusedHidden(made, kernels), kernels)):
        made.zero_grad(set_to_none=True)
        out = hidden(IDS)
        loss = linear_cross_entropy(out, made.head_weight, targets, scale=1 / 48, kernels=built, cap=cap)
        loss.backward()
        grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
        found.append((loss.detach(), grads))
    for loss, grads in found:
        torch.testing.assert_close(
            loss, F.cross_entropy(logits.detach(), targets.flatten()), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(grads, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", ["scales", "values", "ngrams"])
def test_they_start_as_nothing(case: str) -> None:
    with_it, without = Decoder(spec(**CASES[case]), seed=3), Decoder(spec(), seed=3)
    assert torch.equal(with_it(IDS), without(IDS))


@pytest.mark.parametrize("case", CASES)
def test_what_is_there_is_counted_and_trained(case: str, tmp_path: Path) -> None:
    made = decoder(case)
    assert sum(p.numel() for p in made.parameters()) == made.spec.parameters()
    assert ModelSpec.from_dict(made.spec.to_dict()) == made.spec
    trained = {id(p) for p in build_optimiser(made, "adamw").parameters()}
    assert trained == {id(p) for p in made.parameters() if p.requires_grad}
    save_decoder(made, tmp_path, end_id=0)
    assert torch.equal(load_decoder(tmp_path)(IDS), made(IDS))


def test_a_cap_holds() -> None:
    made = decoder("cap")
    with torch.no_grad():
        assert made.head is not None
        made.head.weight.mul_(100)
        assert 4.9 < float(made(IDS).abs().max()) <= 5.0


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"additions": {"caps": 3}}, "model.additions.caps"),
        ({"additions": {"ngrams": 3}}, "model.additions.ngrams"),
        ({"layers": 4, "sharing": {"times": 2}, "additions": {"scales": True}}, "model.additions.scales"),
        (
            {"mixers": ("short_conv",) * 3, "mixer_settings": ({},) * 3, "additions": {"values": True}},
            "model.additions.values",
        ),
    ],
)
def test_what_cannot_be_is_named(more: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        spec(**more)
    assert caught.value.where == where


def test_other_families_name_the_one_that_can() -> None:
    with pytest.raises(RecipeError) as caught:
        ModelSpec.of_family(
            "qwen3", vocab_size=61, layers=1, width=32, heads=4, ffn_width=48, additions={"cap": 15}
        )
    assert caught.value.expected == "family: kogata"


def test_packed_documents_are_refused() -> None:
    with pytest.raises(RecipeError, match="additions"):
        PackedHidden(decoder("scales"), None)
