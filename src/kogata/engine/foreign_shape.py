"""What a config.json says of the shape of a model that only transformers can build. Imports no torch."""

from __future__ import annotations

from typing import Any

LAYERED = (
    "apertus", "bloom", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon", "gemma", "gemma2",
    "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese",
    "gptj", "granite", "helium", "internlm3", "llama", "ministral", "mistral", "mpt", "nemotron",
    "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm",
)  # fmt: skip
"""Kinds of models whose layers can be left out, and held in another form; a test tries each."""

_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
}


def shape_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """Reads layers, width and heads; None where the config does not name them.

    Returns:
        `kind` (the config's `model_type`), `layers`, `width`, `heads`, `kv_heads`, `head_dim`, `tied`.
    """
    found: dict[str, Any] = {"kind": config.get("model_type")}
    for name, peers in _NAMES.items():
        values = [config[peer] for peer in peers if isinstance(config.get(peer), int)]
        found[name] = values[0] if values and values[0] > 0 else None
    if None in (found["layers"], found["width"], found["heads"]) or found["width"] % found["heads"]:
        return None
    if config.get("multi_query"):
        found["kv_heads"] = 1
    kv = found["kv_heads"] or found["heads"]
    found["kv_heads"] = kv if found["heads"] % kv == 0 else found["heads"]
    found["head_dim"] = found["head_dim"] or found["width"] // found["heads"]
    if found["head_dim"] % 2:
        return None
    found["tied"] = bool(config.get("tie_word_embeddings", True))
    return found


def layered(shape: dict[str, Any] | None) -> bool:
    """Says whether single layers of a model can be left out, and held in another form."""
    return shape is not None and "layers" in shape and shape["kind"] in LAYERED
