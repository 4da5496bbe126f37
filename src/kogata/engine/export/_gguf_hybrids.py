"""How gemma3, lfm2 and qwen3_5 lie in a GGUF file: names, settings, and what llama.cpp wants otherwise."""

from __future__ import annotations

from typing import Any

from kogata.nn.spec import ModelSpec

ARCHITECTURES = {"qwen3_5": "qwen35"}
"""llama.cpp's name of a family, where it is another."""
_LAYERS = {
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    "lfm2": {
        "operator_norm": "attn_norm",
        "ffn_norm": "ffn_norm",
        "self_attn.out_proj": "attn_output",
        "self_attn.q_layernorm": "attn_q_norm",
        "self_attn.k_layernorm": "attn_k_norm",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
        "conv.in_proj": "shortconv.in_proj",
        "conv.conv": "shortconv.conv",
        "conv.out_proj": "shortconv.out_proj",
    },
    "qwen3_5": {
        "post_attention_layernorm": "post_attention_norm",
        "linear_attn.in_proj_qkv": "attn_qkv",
        "linear_attn.in_proj_z": "attn_gate",
        "linear_attn.in_proj_b": "ssm_beta",
        "linear_attn.in_proj_a": "ssm_alpha",
        "linear_attn.conv1d": "ssm_conv1d",
        "linear_attn.norm": "ssm_norm",
        "linear_attn.out_proj": "ssm_out",
    },
}
_WHOLE = {"linear_attn.A_log": "ssm_a", "linear_attn.dt_bias": "ssm_dt.bias"}
"""Weights that are called something without `.weight` at their end."""
_TOP = {"lfm2": {"model.embedding_norm": "token_embd_norm"}}
_USUAL_LOCAL_THETA = 10_000.0
"""llama.cpp's base of the rotary frequencies in gemma3's windows, whatever the file says."""


def layer_names(family: str) -> dict[str, str]:
    """Gives what the parts of a layer are called, beside the usual names."""
    return _LAYERS.get(family, {})


def top_names(family: str) -> dict[str, str]:
    """Gives what stands beside the layers, beside the usual names."""
    return _TOP.get(family, {})


def whole_name(name: str) -> str | None:
    """Gives the name of a layer's weight that is no `.weight`; None where it is one."""
    parts = name.split(".", 3)
    found = _WHOLE.get(parts[3]) if len(parts) == 4 else None
    return None if found is None else f"blk.{parts[2]}.{found}"


def period_of(spec: ModelSpec, kind: str) -> int | None:
    """Says how many layers come to one of this kind, always the last of them; None where it is irregular.

    A spec without such a layer has a period longer than itself.
    """
    chosen = [layer + 1 for layer in range(spec.layers) if spec.mixer(layer) == kind]
    period = chosen[0] if chosen else spec.layers + 1
    return period if chosen == list(range(period, spec.layers + 1, period)) else None


def refuse(spec: ModelSpec) -> str | None:
    """Says why llama.cpp has no graph for such a spec; None where it has one."""
    if spec.rope_scaling is not None:
        return f"{spec.family} with scaled positions"
    if spec.family == "gemma3":
        if period_of(spec, "full") is None:
            return "gemma3 whose full layers are not every n-th (llama.cpp's are)"
        if spec.local_rope_theta != _USUAL_LOCAL_THETA:
            return f"gemma3 with windows of rotary base {spec.local_rope_theta:g} (llama.cpp's: 10,000)"
    if spec.family == "lfm2" and period_of(spec, "full") == spec.layers + 1:
        return "lfm2 without attention"
    if spec.family == "qwen3_5":
        if period_of(spec, "gated_full") is None:
            return "qwen3_5 whose full layers are not every n-th (llama.cpp's are)"
        sizes = {spec.settings(i).of(spec)[1:] for i in range(spec.layers) if spec.mixer(i) == "gated_delta"}
        if any(key != value for key, value in sizes):
            return "qwen3_5 whose linear keys and values differ in size (llama.cpp has one size)"
    return None


def write_shape(writer: Any, spec: ModelSpec) -> None:
    """Adds the settings that these families have beside the usual ones."""
    from kogata.engine.hf_hybrids import window_of

    if spec.family == "gemma3":
        writer.add_sliding_window(window_of(spec) or spec.context)
        period = period_of(spec, "full")
        assert period is not None
        writer.add_sliding_window_pattern(period)
    if spec.family == "lfm2":
        given = [spec.settings(layer) for layer in range(spec.layers) if spec.mixer(layer) == "short_conv"]
        writer.add_shortconv_l_cache(given[0].size if given else 3)
    if spec.family == "qwen3_5":
        half = (spec.rotary_dim or spec.head_dim) // 2
        # Time, height and width take turns; a text's tokens have the same position in all three.
        writer.add_rope_dimension_sections([(half + 2) // 3, (half + 1) // 3, half // 3, 0])
        period = period_of(spec, "gated_full")
        assert period is not None
        writer.add_full_attention_interval(period)
        given = [spec.settings(layer) for layer in range(spec.layers) if spec.mixer(layer) == "gated_delta"]
        heads, key, value = given[0].of(spec) if given else (spec.heads, spec.head_dim, spec.head_dim)
        writer.add_ssm_conv_kernel(given[0].conv if given else 4)
        writer.add_ssm_state_size(key)
        writer.add_ssm_group_count(heads)
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_inner_size(heads * value)


def heads_kv(spec: ModelSpec) -> int | list[int]:
    """Gives the key heads, by layer where a layer without attention is known by having none."""
    if spec.family != "lfm2":
        return spec.kv_heads
    return [spec.kv_heads if spec.mixer(layer) == "full" else 0 for layer in range(spec.layers)]


def convert(spec: ModelSpec, name: str, value: Any) -> Any:
    """Turns a weight (numpy) of transformers into what llama.cpp computes with."""
    import numpy as np

    if spec.centred_norms and name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return value + 1.0
    if name.endswith(".A_log"):
        return -np.exp(value)
    return value[:, 0] if value.ndim == 3 else value


def stays_float32(name: str) -> bool:
    """Says whether llama.cpp computes with this matrix in float32 alone: short convolutions."""
    return name.endswith((".conv.conv.weight", ".conv1d.weight"))
