"""The decoder: causal, independent across packed documents, equal with and without cache, repeatable."""

from __future__ import annotations

import pytest
import torch

from kogata.nn.decoder import Decoder, initialise
from kogata.nn.spec import FAMILIES, ModelSpec


def random_decoder(family: str, **more: object) -> Decoder:
    sizes = {
        "vocab_size": 61,
        "layers": 4,
        "width": 48,
        "heads": 4,
        "kv_heads": 2,
        "ffn_width": 64,
        "context": 64,
    }
    if family == "smollm3":
        more.setdefault("rope_layers", (True, True, True, False))
    decoder = Decoder(ModelSpec.of_family(family, **{**sizes, **more}), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return decoder.eval()


def ids_of(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_sees_a_later_one(family: str) -> None:
    decoder = random_decoder(family)
    x = decoder.embed(ids_of(1, 12)).detach().requires_grad_()
    decoder.embed.forward = lambda input: x
    decoder.hidden(ids_of(1, 12))[0, 5].sum().backward()
    assert x.grad is not None
    reach = x.grad[0].abs().sum(-1)
    assert (reach[:6] > 0).all() and (reach[6:] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_are_independent(family: str) -> None:
    decoder = random_decoder(family)
    a, b, c = ids_of(1, 7, 1), ids_of(1, 9, 2), ids_of(1, 16, 3)
    rows = torch.cat([torch.cat([a, b], 1), c])
    packed = decoder.hidden(rows, documents=[[7, 16], [16]])
    alone = torch.cat([torch.cat([decoder.hidden(a), decoder.hidden(b)], 1), decoder.hidden(c)])
    assert (packed - alone).abs().max() < 1e-4
    assert (decoder.hidden(rows)[0, 7:] - packed[0, 7:]).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_equals_recompute(family: str) -> None:
    decoder = random_decoder(family)
    ids = ids_of(2, 20)
    whole = decoder(ids)
    cache, pieces = decoder.new_cache(2, 32), []
    for start, end in ((0, 6), (6, 7), (7, 12), (12, 13), (13, 20)):
        pieces.append(decoder.logits(decoder.hidden(ids[:, start:end], cache=cache)))
    assert cache.length == 20
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-4
    cache.rewind(10)
    again = decoder.logits(decoder.hidden(ids[:, 10:12], cache=cache))
    assert (again - whole[:, 10:12]).abs().max() < 1e-4


def test_a_full_cache_says_so() -> None:
    decoder = random_decoder("llama")
    cache = decoder.new_cache(1, 4)
    with pytest.raises(ValueError, match="holds 4 tokens"):
        decoder.hidden(ids_of(1, 5), cache=cache)


def test_given_positions_are_used() -> None:
    decoder = random_decoder("qwen3")
    ids = ids_of(2, 8)
    plain = decoder.hidden(ids)
    shifted = decoder.hidden(ids, positions=torch.arange(8) + 100)
    per_row = decoder.hidden(ids, positions=torch.stack([torch.arange(8), torch.arange(8) + 7]))
    assert (plain - shifted).abs().max() < 1e-3, "rotary positions are relative"
    assert (plain - per_row).abs().max() < 1e-3
    assert (plain - decoder.hidden(ids, positions=torch.arange(8) * 3)).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_spec_counts_what_is_there(family: str) -> None:
    for tied in (True, False):
        decoder = random_decoder(family, tied=tied)
        assert sum(p.numel() for p in decoder.parameters()) == decoder.spec.parameters()
        matrices = [p for block in decoder.blocks for p in block.parameters() if p.ndim == 2]
        assert sum(p.numel() for p in matrices) == decoder.spec.matrix_parameters()
        assert (decoder.head_weight is decoder.embed.weight) == tied


def test_flops_agree_with_torch() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    decoder = random_decoder("llama")
    with FlopCounterMode(display=False) as counter:
        decoder(ids_of(1, 32))
    attention = decoder.spec.layers * 2 * decoder.spec.q_width * 32
    products = (decoder.spec.forward_flops_per_token(32) - attention) * 32
    # torch counts attention without the causal half, where it counts it at all.
    assert products <= counter.get_total_flops() <= products + 2 * attention * 32


def test_seed_alone_decides_the_weights() -> None:
    spec = ModelSpec.of_family("qwen3", vocab_size=61, layers=2, width=48, heads=4, ffn_width=64)
    torch.manual_seed(1)
    first = Decoder(spec, seed=7)
    torch.manual_seed(2)
    second, third = Decoder(spec, seed=7), Decoder(spec, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embed.weight, third.embed.weight)
    initialise(third, 7)
    assert torch.equal(first.embed.weight, third.embed.weight)
    assert not first.layers()[0].mixer.out.weight.any()


def test_linear_layers_have_names() -> None:
    names = [n for n, m in random_decoder("qwen3", tied=False).named_modules() if type(m) is torch.nn.Linear]
    assert names[:4] == [
        "blocks.0.mixer.qkv",
        "blocks.0.mixer.out",
        "blocks.0.ffn.gate_up",
        "blocks.0.ffn.down",
    ]
    assert names[-1] == "head" and len(names) == 17


def test_longer_than_the_tables() -> None:
    decoder = random_decoder("llama")
    assert decoder.hidden(ids_of(1, 200)).shape == (1, 200, 48)
    assert decoder.rope.cos.shape[0] == 200
