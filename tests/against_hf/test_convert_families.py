"""Our decoder computes what transformers computes, for each family, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kogata.engine.convert import largest_difference, load_decoder, save_decoder
from kogata.nn.decoder import Decoder
from kogata.nn.spec import FAMILIES, ModelSpec

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
IDS = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))


def random_peer(family: str, **more: object) -> transformers.PreTrainedModel:
    """Builds a random transformers model; every weight is random, norms and biases too."""
    torch.manual_seed(0)
    no_specials = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **no_specials, "head_dim": 16, **more})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.05))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_logits_both_ways(family: str, tied: bool, tmp_path: Path) -> None:
    peer = random_peer(family, tie_word_embeddings=tied)
    peer.save_pretrained(tmp_path / "theirs")
    ours = load_decoder(tmp_path / "theirs")
    assert ours.spec.family == family and ours.spec.tied == tied
    assert largest_difference(ours, peer, IDS) < 1e-4
    save_decoder(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(peer)
    assert next(again.parameters()).dtype == torch.float32
    assert largest_difference(ours, again, IDS) < 1e-4
    assert sum(p.numel() for p in again.parameters()) == ours.spec.parameters()
    assert load_decoder(tmp_path / "ours").spec == ours.spec


@pytest.mark.parametrize("family", FAMILIES)
def test_our_fresh_model_is_theirs(family: str, tmp_path: Path) -> None:
    spec = ModelSpec.of_family(
        family,
        vocab_size=97,
        layers=2,
        width=64,
        heads=4,
        kv_heads=2,
        ffn_width=96,
        context=64,
        rope_theta=5e4,
    )
    ours = Decoder(spec, seed=3)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    save_decoder(ours, tmp_path)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert largest_difference(ours, peer, IDS) < 1e-4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_positions(rope: dict, tmp_path: Path) -> None:
    peer = random_peer("llama", rope_parameters={**rope, "rope_theta": 10000.0})
    peer.save_pretrained(tmp_path / "theirs")
    ours = load_decoder(tmp_path / "theirs")
    long = torch.randint(0, 97, (1, 120), generator=torch.Generator().manual_seed(2))
    assert largest_difference(ours, peer, long) < 1e-4
    save_decoder(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert largest_difference(ours, again, long) < 1e-4


def test_heads_wider_than_the_model(tmp_path: Path) -> None:
    for family in ("qwen3", "llama", "arcee"):
        peer = random_peer(family, head_dim=32)
        peer.save_pretrained(tmp_path / family)
        assert largest_difference(load_decoder(tmp_path / family), peer, IDS) < 1e-4


def test_positions_left_out_where_the_config_says(tmp_path: Path) -> None:
    peer = random_peer("smollm3", no_rope_layers=[1, 0, 0, 1, 1])
    peer.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert ours.spec.rope_layers == (True, False, False, True, True)
    assert largest_difference(ours, peer, IDS) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    peer = random_peer("qwen3")
    peer = peer.half() if dtype == torch.float16 else peer.bfloat16()
    peer.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    widened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert largest_difference(ours, widened, IDS) < 1e-4


def test_shards_are_read_by_index(tmp_path: Path) -> None:
    peer = random_peer("llama")
    peer.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert largest_difference(load_decoder(tmp_path), peer, IDS) < 1e-4


def test_config_as_version_4_wrote_it(tmp_path: Path) -> None:
    peer = random_peer("llama", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0})
    peer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert largest_difference(load_decoder(tmp_path), peer, IDS) < 1e-4
