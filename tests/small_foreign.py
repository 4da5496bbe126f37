"""Small random models of many kinds in transformers' own module, as folders, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_models import write_small_tokenizer

from kogata.core.artifact import Artifact, Kind
from kogata.engine.foreign_shape import shape_of
from kogata.engine.hf_folder import read_config

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48, "max_position_embeddings": 96,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24, "sliding_window": 4,
}  # fmt: skip
OTHERWISE: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None, "num_key_value_heads": None},
    "gptj": {"head_dim": None, "num_key_value_heads": None, "rotary_dim": 8},
    "gpt_neo": {
        "num_key_value_heads": None, "num_hidden_layers": None, "num_layers": 3, "window_size": 4,
        "attention_types": [[["global", "local"], 1], [["global"], 1]],
    },
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1},
}  # fmt: skip
"""What a kind needs beside that; None: nothing is given, though its config has such a name."""


def small_config(kind: str, **more: Any) -> Any:
    """Gives a small config: sliding windows of 4 tokens and 4 experts where the kind has such."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    known = {*getattr(usual, "attribute_map", {}), *usual.to_dict()}
    own = OTHERWISE.get(kind, {})
    given = {name: value for name, value in SIZES.items() if name in known and name not in own}
    given |= {name: value for name, value in own.items() if value is not None}
    return AutoConfig.for_model(kind, **{**given, **more})


def write_foreign(folder: Path, kind: str, **more: Any) -> Artifact:
    """Writes a random model whose weights bfloat16 holds exactly."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(small_config(kind, **more))
    model.bfloat16().save_pretrained(folder)
    write_small_tokenizer(folder)
    facts = {
        "spec": None, "role": "decoder", "architecture": kind, "vocab_size": 320, "context": 96, "end_id": 0,
        "parameters": sum(weight.numel() for weight in model.parameters()), "source": None,
        "shape": shape_of(read_config(folder)),
    }  # fmt: skip
    return Artifact(kind=Kind.MODEL, digest=kind, path=folder, facts=facts)
