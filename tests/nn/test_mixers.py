"""Every mixer and way of sharing: causal, equal with and without cache, documents apart, counted rightly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kogata.core.errors import RecipeError
from kogata.nn import fused
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.mixers import read_pattern
from kogata.nn.recurrent._delta import gated_delta
from kogata.nn.spec import ModelSpec

SIZES: dict[str, Any] = {"vocab_size": 61, "layers": 4, "width": 48, "heads": 4, "kv_heads": 2}
SIZES |= {"ffn_width": 64, "context": 64}
CASES: dict[str, dict[str, Any]] = {
    "window": {"pattern": [{"window": {"size": 8}}]},
    "local and global": {"pattern": [{"window": {"size": 5}}, "full"]},
    "compressive": {"pattern": [{"compressive": {"size": 8}}]},
    "short_conv": {"pattern": ["short_conv"]},
    "gated_delta": {"pattern": ["gated_delta"]},
    "gated_full": {"pattern": ["gated_full"]},
    "reuse": {"pattern": ["full", "reuse", {"window": {"size": 8}}, "reuse"]},
    "times": {"sharing": {"times": 2}},
    "loops": {"sharing": {"loops": 2, "rank": 4}},
    "factorised": {"embed_width": 8, "tied": False},
    "experts": {"ffn": "experts", "ffn_settings": {"count": 3, "top": 2}},
    "experts in loops": {
        "ffn": "experts",
        "ffn_settings": {"count": 2},
        "sharing": {"loops": 2, "rank": 2},
    },
    "gemma3": {"family": "gemma3"},
    "lfm2": {"family": "lfm2"},
    "qwen3_5": {"family": "qwen3_5"},
}


def make(pattern: list | None = None, family: str = "kogata", **more: Any) -> Decoder:
    torch.set_num_threads(1)
    if pattern is not None:
        more["mixers"], more["mixer_settings"] = read_pattern(pattern, 4)
    decoder = Decoder(ModelSpec.of_family(family, **{**SIZES, **more}), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return decoder.eval()


def ids_of(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES)
def test_no_token_sees_a_later_one(case: str) -> None:
    decoder = make(**CASES[case])
    x = decoder.embed(ids_of(1, 40)).detach().requires_grad_()
    decoder.embed.forward = lambda input: x
    decoder.hidden(ids_of(1, 40))[0, 20].sum().backward()
    assert x.grad is not None
    reach = x.grad[0].abs().sum(-1)
    assert reach[18:21].min() > 0 and (reach[21:] == 0).all()


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_cache_equals_recompute(case: str) -> None:
    decoder, ids = make(**CASES[case]), ids_of(2, 40)
    whole, cache, pieces = decoder(ids), decoder.new_cache(2, 64), []
    for start, end in ((0, 6), (6, 7), (7, 12), (12, 13), (13, 33), (33, 34), (34, 35), (35, 40)):
        pieces.append(decoder.logits(decoder.hidden(ids[:, start:end], cache=cache)))
    assert (torch.cat(pieces, 1) - whole).abs().max() < 2e-4


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_packed_documents_are_independent(case: str) -> None:
    decoder = make(**CASES[case])
    a, b, c = ids_of(1, 17, 1), ids_of(1, 23, 2), ids_of(1, 40, 3)
    rows = torch.cat([torch.cat([a, b], 1), c])
    packed = decoder.hidden(rows, documents=[[17, 40], [40]])
    alone = torch.cat([torch.cat([decoder.hidden(a), decoder.hidden(b)], 1), decoder.hidden(c)])
    assert (packed - alone).abs().max() < 1e-4
    assert (decoder.hidden(rows)[0, 17:] - packed[0, 17:]).abs().max() > 1e-2


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_cache_holds_what_the_spec_counts(case: str) -> None:
    decoder = make(**CASES[case])
    cache = decoder.new_cache(1, 64)
    decoder.hidden(ids_of(1, 64), cache=cache)
    held = [value for state in cache.states for value in vars(state).values()]
    tensors = [one for value in held for one in (value.values() if isinstance(value, dict) else [value])]
    floats = {id(one): one.numel() for one in tensors if isinstance(one, torch.Tensor)}
    assert 4 * sum(floats.values()) == decoder.spec.cache_bytes(64)


@pytest.mark.parametrize("case", CASES)
def test_spec_counts_what_is_there(case: str) -> None:
    decoder = make(**CASES[case])
    spec = decoder.spec
    assert sum(p.numel() for p in decoder.parameters()) == spec.parameters()
    matrices = [p for block in decoder.blocks for p in block.parameters() if p.ndim == 2]
    matrices += [] if decoder.loops is None else list(decoder.loops.parameters())
    assert sum(p.numel() for p in matrices) == spec.matrix_parameters()
    assert ModelSpec.from_dict(spec.to_dict()) == spec


@torch.no_grad()
def test_chunks_equal_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 150, 8, generator=generator) for _ in range(3))
    k = k / k.norm(dim=-1, keepdim=True)
    decay = -torch.rand(2, 3, 150, generator=generator)
    beta = torch.rand(2, 3, 150, generator=generator)
    whole, end = gated_delta(q, k, v, decay, beta)
    state, rows = torch.zeros(2, 3, 8, 8), []
    for t in range(150):
        state = state * decay[:, :, t].exp()[..., None, None]
        held = torch.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        change = beta[:, :, t, None] * (v[:, :, t] - held)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, :, t], change)
        rows.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
    assert (whole - torch.stack(rows, 2)).abs().max() < 1e-4
    assert (end - state).abs().max() < 1e-4


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    built = Kernels.build()
    if built is None:
        pytest.skip("no compiler")
    return built


FUSED: dict[str, dict[str, Any]] = {
    "windows": {"pattern": [{"window": {"size": 16}}]},
    "windows, grouped": {"pattern": [{"window": {"size": 7}}, "full"], "kv_heads": 2},
    "others between": {"pattern": ["short_conv", "gated_delta", "full", "full"]},
    "keys used again": {"pattern": ["full", "reuse"], "kv_heads": 2},
    "shared and narrow": {"sharing": {"times": 2, "loops": 2}, "embed_width": 8, "tied": False},
}


@pytest.mark.parametrize("case", FUSED)
def test_kernels_compute_the_same(case: str, kernels: Kernels) -> None:
    decoder = make(**{"kv_heads": 4, **FUSED[case]})
    for name, weight in decoder.named_parameters():
        if name.endswith(("mixer_norm.weight", "ffn_norm.weight")) or name == "norm.weight":
            weight.requires_grad_(False).fill_(1.0)
    assert fused.fits(decoder)
    ids = ids_of(2, 150)
    wanted = torch.randn(2, 150, 48, generator=torch.Generator().manual_seed(1))
    head = set() if decoder.head is None else set(map(id, decoder.head.parameters()))
    trained = [p for p in decoder.parameters() if p.requires_grad and id(p) not in head]
    found = []
    for compute in (decoder.hidden, fused.FusedHidden(decoder, kernels)):
        hidden = compute(ids)
        found.append((hidden.detach(), torch.autograd.grad((hidden * wanted).sum(), trained)))
    (plain, grads), (fast, fast_grads) = found
    assert (plain - fast).abs().max() < 1e-4
    for a, b in zip(grads, fast_grads, strict=True):
        assert (a - b).abs().max() < 1e-4 * (1 + a.abs().max())


@torch.no_grad()
def test_narrow_rows_give_the_same_logits() -> None:
    for tied in (True, False):
        decoder = make(embed_width=8, tied=tied)
        hidden = decoder.hidden(ids_of(2, 9))
        vectors, rows = decoder.for_head(hidden)
        assert vectors.shape[-1] == rows.shape[-1] == 8
        assert (vectors @ rows.t() - hidden @ decoder.head_weight.t()).abs().max() < 1e-4
        assert (decoder.logits(hidden) - vectors @ rows.t()).abs().max() < 1e-4
    plain = make(tied=False)
    assert plain.for_head(hidden)[0] is hidden and plain.for_head(hidden)[1] is plain.head.weight


def test_masks_and_tables_made_while_scoring_serve_training() -> None:
    decoder = make([{"window": {"size": 8}}], context=16)
    with torch.inference_mode():
        decoder.hidden(ids_of(1, 60))
    decoder.hidden(ids_of(1, 60)).sum().backward()
    assert all(p.grad is not None for p in decoder.blocks.parameters())


def test_a_windows_cache_does_not_grow() -> None:
    spec = ModelSpec.of_family(
        "qwen3", **{**SIZES, "context": 16_384, "layers": 8}, mixers=("window",) * 7 + ("full",)
    )
    full = ModelSpec.of_family("qwen3", **{**SIZES, "context": 16_384, "layers": 8})
    assert spec.cache_bytes(16_384) <= full.cache_bytes(16_384) / 4


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"pattern": ["window", "full"]}, "qwen2 | qwen3 | gemma3 | kogata"),
        ("qwen3", {"pattern": ["full"] * 5}, "model.pattern"),
        ("qwen3", {"pattern": [{"window": {"size": 65}}]}, "model.pattern.window"),
        ("qwen3", {"pattern": [{"window": {"sise": 6}}]}, "model.pattern.window.sise"),
        ("qwen3", {"pattern": ["wndow"]}, "window"),
        ("kogata", {"pattern": ["reuse", "full"]}, "model.pattern.reuse"),
        ("qwen3", {"heads": 5}, "model.heads"),
        ("qwen3", {"sharing": {"times": 2}}, "family: kogata"),
        ("kogata", {"sharing": {"times": 3}}, "model.sharing"),
        ("kogata", {"sharing": {"rank": 3}}, "model.sharing.rank"),
        ("kogata", {"sharing": {"times": 2}, "pattern": ["full", "window"]}, "alike"),
        ("kogata", {"sharing": {"times": 2}, "pattern": [{"window": {"size": 8}}, "window"]}, "alike"),
        ("kogata", {"embed_width": 48}, "model.embed_width"),
        ("kogata", {"rotary_dim": 14}, "model.rotary_dim"),
        ("llama", {"ffn": "relu2"}, "arcee"),
    ],
)
def test_what_cannot_be_is_named(family: str, change: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(family=family, **({"kv_heads": 5} if "heads" in change else {}), **change)
    assert message in str(caught.value)
