"""config.json of the families with other mixers than full attention: gemma3, lfm2, qwen3_5; and of our own.

Each family has a reader, config → fields of a ModelSpec, and a writer, spec → what it adds to config.json.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kogata.nn.spec import ModelSpec

Refuse = Callable[[str, str, str], Exception]

MODEL_TYPES = {"gemma3_text": "gemma3", "lfm2": "lfm2", "qwen3_5_text": "qwen3_5", "kogata": "kogata"}
"""config.json's `model_type` → family."""
ARCHITECTURES = {
    "gemma3": "Gemma3ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "qwen3_5": "Qwen3_5ForCausalLM",
    "kogata": "KogataForCausalLM",
}
CODE = "modeling_kogata.py"
"""The file beside config.json that transformers runs when the user allows it."""
_KINDS = {
    "gemma3": {"sliding_attention": "window", "full_attention": "full"},
    "lfm2": {"conv": "short_conv", "full_attention": "full"},
    "qwen3_5": {"linear_attention": "gated_delta", "full_attention": "gated_full"},
}
"""Per family, what config.json calls a layer → our mixer."""


def window_of(spec: ModelSpec) -> int | None:
    """Gives the one window of a spec; None where no layer has one."""
    sizes = {spec.settings(layer).of(spec) for layer in range(spec.layers) if spec.mixer(layer) == "window"}
    return max(sizes) if sizes else None


def read_kinds(config: dict[str, Any], family: str, layers: int, refuse: Refuse) -> tuple[str, ...]:
    """Reads the mixers from `layer_types`."""
    given = config.get("layer_types") or _silent_kinds(config, family, layers)
    known = _KINDS[family]
    for kind in given[:layers]:
        if kind not in known:
            raise refuse("layer_types", str(kind), " | ".join(known))
    return tuple(known[kind] for kind in given[:layers])


def _silent_kinds(config: dict[str, Any], family: str, layers: int) -> list[str]:
    if family == "gemma3":
        every = int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6)
        return ["full_attention" if not (i + 1) % every else "sliding_attention" for i in range(layers)]
    if family == "lfm2":
        full = config.get("full_attn_idxs")
        return ["full_attention" if full is None or i in full else "conv" for i in range(layers)]
    every = int(config.get("full_attention_interval") or 4)
    return ["full_attention" if not (i + 1) % every else "linear_attention" for i in range(layers)]


def read_hybrid(config: dict[str, Any], family: str, refuse: Refuse) -> dict[str, Any]:
    """Gives the fields of a spec beside the sizes every family has."""
    layers = int(config["num_hidden_layers"])
    found: dict[str, Any] = {"mixers": read_kinds(config, family, layers, refuse)}
    read = {"gemma3": _read_gemma3, "lfm2": _read_lfm2, "qwen3_5": _read_qwen3_5}[family]
    settings = read(config, found, refuse)
    found["mixer_settings"] = tuple(settings.get(name, {}) for name in found["mixers"])
    return found


def _read_gemma3(config: dict[str, Any], found: dict[str, Any], refuse: Refuse) -> dict[str, dict[str, Any]]:
    head = int(config.get("head_dim") or 256)
    scalar = config.get("query_pre_attn_scalar", 256)
    if scalar != head:
        raise refuse("query_pre_attn_scalar", str(scalar), f"head_dim = {head}")
    for field in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if config.get(field):
            raise refuse(field, str(config[field]), "none")
    activation = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    if activation != "gelu_pytorch_tanh":
        raise refuse("hidden_activation", str(activation), "gelu_pytorch_tanh")
    context = int(config.get("max_position_embeddings") or 131_072)
    # A window beyond the context is full attention.
    return {"window": {"size": min(int(config.get("sliding_window") or 4096), context)}}


def _read_lfm2(config: dict[str, Any], found: dict[str, Any], refuse: Refuse) -> dict[str, dict[str, Any]]:
    if config.get("conv_bias"):
        raise refuse("conv_bias", "true", "false")
    return {"short_conv": {"size": int(config.get("conv_L_cache", 3))}}


def lfm2_ffn_width(config: dict[str, Any]) -> int:
    """Computes the inner width as lfm2 does from its three settings."""
    width = int(config.get("block_ff_dim") or config["intermediate_size"])
    if not config.get("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor, step = config.get("block_ffn_dim_multiplier", 1.0), int(config.get("block_multiple_of", 256))
    return width if factor is None else -(-int(factor * width) // step) * step


def _read_qwen3_5(config: dict[str, Any], found: dict[str, Any], refuse: Refuse) -> dict[str, dict[str, Any]]:
    keys, values = config.get("linear_num_key_heads", 16), config.get("linear_num_value_heads", 32)
    if keys != values:
        raise refuse("linear_num_value_heads", str(values), f"as many as key heads, {keys}")
    return {
        "gated_delta": {
            "heads": int(keys),
            "key_dim": int(config.get("linear_key_head_dim", 128)),
            "value_dim": int(config.get("linear_value_head_dim", 128)),
            "conv": int(config.get("linear_conv_kernel_dim", 4)),
        }
    }


def refuse_unwritable(spec: ModelSpec) -> tuple[str, str, str] | None:
    """Says what of a spec its family's config.json cannot state: field, found, expected; None: nothing."""
    one_size = [
        ("window", "the same window in every layer that has one"),
        ("short_conv", "the same convolution in every layer that has one"),
        ("gated_delta", "the same heads in every layer of gated_delta"),
    ]
    if spec.family == "kogata":
        return None
    for name, expected in one_size:
        given = [spec.settings(layer) for layer in range(spec.layers) if spec.mixer(layer) == name]
        if len(set(map(repr, given))) > 1:
            return f"pattern.{name}", " and ".join(sorted(set(map(repr, given)))), expected
    return None


def write_hybrid(spec: ModelSpec) -> dict[str, Any]:
    """Gives what config.json says beside, or instead of, what every family has."""
    if spec.family == "kogata":
        return {
            "spec": spec.to_dict(),
            "auto_map": {
                "AutoConfig": f"{CODE.removesuffix('.py')}.KogataConfig",
                "AutoModelForCausalLM": f"{CODE.removesuffix('.py')}.KogataForCausalLM",
            },
        }
    names = {mixer: kind for kind, mixer in _KINDS[spec.family].items()}
    kinds = [names[spec.mixer(layer)] for layer in range(spec.layers)]
    write = {"gemma3": _write_gemma3, "lfm2": _write_lfm2, "qwen3_5": _write_qwen3_5}[spec.family]
    return {"layer_types": kinds, **write(spec)}


def _write_gemma3(spec: ModelSpec) -> dict[str, Any]:
    full = {"rope_type": "default", **(spec.rope_scaling or {}), "rope_theta": spec.rope_theta}
    local = {"rope_type": "default", "rope_theta": spec.local_rope_theta}
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": spec.head_dim,
        "sliding_window": window_of(spec) or spec.context,
        "rope_parameters": {"full_attention": full, "sliding_attention": local},
        "rope_theta": None,
        "hidden_act": None,
        "use_bidirectional_attention": False,
    }


def _write_lfm2(spec: ModelSpec) -> dict[str, Any]:
    sizes = [spec.settings(i).size for i in range(spec.layers) if spec.mixer(i) == "short_conv"]
    return {
        "norm_eps": spec.norm_eps,
        "conv_L_cache": sizes[0] if sizes else 3,
        "conv_bias": False,
        "block_auto_adjust_ff_dim": False,
        "hidden_act": None,
        "rms_norm_eps": None,
    }


def _write_qwen3_5(spec: ModelSpec) -> dict[str, Any]:
    given = [spec.settings(i) for i in range(spec.layers) if spec.mixer(i) == "gated_delta"]
    share = (spec.rotary_dim or spec.head_dim) / spec.head_dim
    rope = {"rope_type": "default", "rope_theta": spec.rope_theta, "partial_rotary_factor": share}
    found: dict[str, Any] = {
        "model_type": "qwen3_5_text",
        "rope_parameters": {**rope, **(spec.rope_scaling or {})},
        "partial_rotary_factor": share,
        "attention_bias": False,
    }
    if given:
        heads, key, value = given[0].of(spec)
        found |= {
            "linear_num_key_heads": heads,
            "linear_num_value_heads": heads,
            "linear_key_head_dim": key,
            "linear_value_head_dim": value,
            "linear_conv_kernel_dim": given[0].conv,
        }
    return found
