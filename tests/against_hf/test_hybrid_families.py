"""Windows, short convolutions and the gated delta rule compute what transformers computes, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kogata.core.errors import RecipeError
from kogata.engine.convert import largest_difference, load_decoder, save_decoder
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WINDOWED = {"use_sliding_window": True, "sliding_window": 9}
LOCAL = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
SCALED = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 9}
DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 8,
}
PEERS = {
    "qwen3": {"head_dim": 16, "layer_types": LOCAL, **WINDOWED},
    "qwen2": {"layer_types": LOCAL, **WINDOWED},
    "gemma3_text": {**GEMMA, "layer_types": LOCAL, "rope_parameters": SCALED},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"], "conv_L_cache": 4},
    "qwen3_5_text": DELTA,
}
BOTH_WAYS = [
    ("qwen3", False), ("qwen2", True), ("gemma3_text", True), ("gemma3_text", False), ("lfm2", True),
    ("qwen3_5_text", False),
]  # fmt: skip
"""Each family once; the head of its own and the shared one also where embeddings are scaled."""
IDS = torch.randint(0, 97, (2, 90), generator=torch.Generator().manual_seed(1))


def random_peer(kind: str, **more: object) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **PEERS[kind], **more})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.05))
    return model


@pytest.mark.parametrize(("kind", "tied"), BOTH_WAYS)
def test_equal_logits_both_ways(kind: str, tied: bool, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    peer = random_peer(kind, tie_word_embeddings=tied)
    peer.save_pretrained(tmp_path / "theirs")
    ours = load_decoder(tmp_path / "theirs")
    assert ours.spec.tied == tied and not ours.spec.only_full()
    assert largest_difference(ours, peer, IDS) < 2e-4
    save_decoder(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(peer)
    assert largest_difference(ours, again, IDS) < 2e-4
    assert sum(p.numel() for p in again.parameters()) == ours.spec.parameters()
    assert load_decoder(tmp_path / "ours").spec == ours.spec


@pytest.mark.parametrize("family", ["gemma3", "lfm2", "qwen3_5"])
def test_our_fresh_model_is_theirs(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    sizes = {"vocab_size": 97, "layers": 6, "width": 64, "heads": 4, "kv_heads": 2, "ffn_width": 96}
    spec = ModelSpec.of_family(family, **sizes, context=48, rope_theta=5e4)
    ours = Decoder(spec, seed=3)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    save_decoder(ours, tmp_path)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert largest_difference(ours, peer, IDS) < 2e-4


def test_windows_of_two_sizes_are_no_family_of_theirs(tmp_path: Path) -> None:
    sizes = {"vocab_size": 97, "layers": 2, "width": 64, "heads": 4, "ffn_width": 96, "context": 64}
    mixers = {"mixers": ("window", "window"), "mixer_settings": ({"size": 8}, {"size": 16})}
    spec = ModelSpec.of_family("qwen3", **sizes, **mixers)
    with pytest.raises(RecipeError, match="same window") as caught:
        save_decoder(Decoder(spec), tmp_path)
    assert "kogata" in str(caught.value.remedy)


def test_our_own_family_needs_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    sizes = {"vocab_size": 97, "layers": 4, "width": 64, "heads": 4, "ffn_width": 96, "context": 64}
    spec = ModelSpec.of_family(
        "kogata",
        **sizes,
        mixers=("compressive", "gated_delta") * 2,
        mixer_settings=({"size": 8}, {}) * 2,
        sharing={"times": 1, "loops": 2, "rank": 2},
        embed_width=16,
    )
    ours = Decoder(spec, seed=1)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    save_decoder(ours, tmp_path / "model")
    assert load_decoder(tmp_path / "model").spec == spec
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=False)
    peer: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert largest_difference(ours, peer.eval(), IDS) < 1e-5
    new = peer.generate(IDS[:1, :5], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert new.shape == (1, 8)
