"""A Hugging Face config.json ↔ ModelSpec. Imports no torch, so plans can read it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError, KogataError, RecipeError
from kogata.engine.hf_hybrids import ARCHITECTURES as HYBRID_ARCHITECTURES
from kogata.engine.hf_hybrids import (
    MODEL_TYPES,
    lfm2_ffn_width,
    read_hybrid,
    refuse_unwritable,
    window_of,
    write_hybrid,
)
from kogata.nn.families import FAMILY
from kogata.nn.spec import FAMILIES, HYBRIDS, ROPE_SCALINGS, ModelSpec

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "arcee": "ArceeForCausalLM",
    **HYBRID_ARCHITECTURES,
}

# What a config means when it says nothing: transformers leaves values out that equal its defaults.
_SILENT: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 1e4, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "context": 2048},
    "qwen2": {
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "context": 32768,
        "kv": 32,
    },
    "qwen3": {
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "context": 32768,
        "kv": 32,
        "head_dim": 128,
    },
    "smollm3": {
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "context": 32768,
        "kv": 4,
    },
    "arcee": {"rope_theta": 1e4, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "context": 4096},
    "gemma3": {
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "context": 131_072,
        "kv": 4,
        "head_dim": 256,
    },
    "lfm2": {
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "context": 128_000,
        "kv": 8,
    },
    "qwen3_5": {
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "context": 32768,
        "kv": 4,
        "head_dim": 256,
    },
}


def spec_from_config(config: dict[str, Any]) -> ModelSpec:
    """Reads the shape of a model from its config.json.

    Raises:
        DataError: the model needs something our decoder cannot express; the message names the field.
    """
    kind = str(config.get("model_type"))
    family = MODEL_TYPES.get(kind, kind)
    if family == "kogata":
        return _own_spec(config)
    if family not in _SILENT or (kind == family and family in ("gemma3", "qwen3_5")):
        raise _not_ours("model_type", kind, " | ".join((*FAMILIES, *MODEL_TYPES)))
    silent, facts = _SILENT[family], FAMILY[family]
    ffn = (facts.ffns or ("swiglu",))[0]
    expected = {"relu2": "relu2", "geglu": "gelu_pytorch_tanh"}.get(ffn, "silu")
    activation = config.get("hidden_act") or expected
    if activation != expected:
        raise _not_ours("hidden_act", str(activation), expected)
    for field in ("attention_bias", "mlp_bias"):
        if config.get(field):
            raise _not_ours(field, "true", "false")
    if config.get("quantization_config"):
        raise _not_ours("quantization_config", "quantised weights", "float weights")
    layers, width, heads = (
        _number(config, k) for k in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    theta, scaling, more = _rope(config, float(silent["rope_theta"]), family)
    more |= read_hybrid(config, family, _not_ours) if family in HYBRIDS else _windows(config, family, layers)
    head_dim = config.get("head_dim", silent.get("head_dim")) or width // heads
    share = more.pop("partial", 1.0)
    if share != 1.0:
        more["rotary_dim"] = int(head_dim * share)
    ffn_width = lfm2_ffn_width(config) if family == "lfm2" else _number(config, "intermediate_size")
    eps = config.get("norm_eps") if family == "lfm2" else config.get("rms_norm_eps")
    try:
        return ModelSpec(
            family=family,
            vocab_size=_number(config, "vocab_size"),
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=config.get("num_key_value_heads", silent.get("kv")) or heads,
            head_dim=head_dim,
            ffn_width=ffn_width,
            ffn=ffn,
            qk_norm=facts.qk_norm,
            qkv_bias=facts.qkv_bias,
            tied=bool(config.get("tie_word_embeddings", silent["tie_word_embeddings"])),
            rope_theta=theta,
            rope_layers=_rope_layers(config, layers) if family == "smollm3" else None,
            rope_scaling=scaling,
            norm_eps=float(silent["rms_norm_eps"] if eps is None else eps),
            context=int(config.get("max_position_embeddings", silent["context"])),
            **more,
        )
    except KogataError as error:
        raise _not_ours(error.where or "", error.found or "", error.expected or "") from None


def _own_spec(config: dict[str, Any]) -> ModelSpec:
    if not isinstance(config.get("spec"), dict):
        raise _not_ours("spec", "nothing", "the shape, as Kogata writes it")
    try:
        return ModelSpec.from_dict(config["spec"])
    except KogataError as error:
        raise DataError(
            "this model cannot be built", where=error.where, found=error.found, expected=error.expected,
            remedy="where a plug-in made one of its parts, load that plug-in",
        ) from None  # fmt: skip


def _windows(config: dict[str, Any], family: str, layers: int) -> dict[str, Any]:
    """Reads which layers of qwen2 and qwen3 see through a window."""
    kinds = (config.get("layer_types") or [])[:layers]
    if not config.get("use_sliding_window") or not config.get("sliding_window"):
        # transformers ignores windows without a size, and `use_sliding_window: false` unsets it.
        kinds = []
    elif not kinds:
        first = int(config.get("max_window_layers", 28))
        kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    if all(kind == "full_attention" for kind in kinds):
        return {}
    if "window" not in (FAMILY[family].mixers or ()):
        raise _not_ours("use_sliding_window", "windowed layers", "full attention in every layer")
    size = min(int(config["sliding_window"]), int(config.get("max_position_embeddings", 32768)))
    return {
        "mixers": tuple("window" if kind == "sliding_attention" else "full" for kind in kinds),
        "mixer_settings": tuple({"size": size} if kind == "sliding_attention" else {} for kind in kinds),
    }


def try_spec(config: dict[str, Any]) -> ModelSpec | None:
    """Reads the shape, or gives None where our decoder cannot express the model."""
    try:
        return spec_from_config(config)
    except DataError:
        return None


def config_from_spec(spec: ModelSpec, special_ids: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes the config.json that makes plain transformers build the same graph."""
    refused = refuse_unwritable(spec)
    if refused is not None:
        field, found, expected = refused
        raise RecipeError(
            f"config.json of {spec.family} cannot state this", where=f"model.{field}", found=found,
            expected=expected, remedy="or family: kogata",
        )  # fmt: skip
    rope = {"rope_type": "default", **(spec.rope_scaling or {}), "rope_theta": spec.rope_theta}
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[spec.family]],
        "model_type": spec.family,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.width,
        "intermediate_size": spec.ffn_width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": "relu2" if spec.ffn == "relu2" else "silu",
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_eps,
        # Both spellings: transformers 5 reads `rope_parameters`, version 4 and other tools the flat ones.
        "rope_parameters": rope,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "float32",
        **{key: (special_ids or {}).get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    if spec.rope_scaling is not None:
        config["rope_scaling"] = spec.rope_scaling
    if spec.family in ("llama", "qwen3", "smollm3", "arcee"):
        config["attention_bias"] = False
    if spec.family in ("llama", "smollm3", "arcee"):
        config["mlp_bias"] = False
    if spec.family in ("qwen2", "qwen3", "smollm3"):
        window = window_of(spec)
        config["use_sliding_window"] = window is not None
        if window is not None:
            config |= {"sliding_window": window, "max_window_layers": 0}
        config["layer_types"] = [
            "sliding_attention" if spec.mixer(layer) == "window" else "full_attention"
            for layer in range(spec.layers)
        ]
    if spec.family == "smollm3":
        config["no_rope_layers"] = [int(spec.has_rope(layer)) for layer in range(spec.layers)]
    if spec.family in ARCHITECTURES and spec.family not in FAMILIES:
        config |= write_hybrid(spec)
        for name in ("hidden_act", "rope_theta", "rms_norm_eps"):
            if config[name] is None:
                del config[name]
    return config


def kind_of_model(config: dict[str, Any]) -> str:
    """Says what a config describes: `decoder`, `encoder`, or `other` (not a language model we can use)."""
    if config.get("model_type") in (*FAMILIES, *MODEL_TYPES) and not config.get("architectures"):
        return "decoder"
    names = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "decoder"
    encoders = (
        "BertModel",
        "BertForMaskedLM",
        "RobertaModel",
        "RobertaForMaskedLM",
        "CamembertModel",
        "ElectraModel",
        "DebertaModel",
        "DebertaV2Model",
        "MPNetModel",
        "MPNetForMaskedLM",
    )
    if any(name.endswith((*encoders, "ForMaskedLM")) for name in names):
        return "encoder"
    return "other"


def needs_code(config: dict[str, Any]) -> bool:
    """Says whether only code shipped with the model can build it: transformers has no class for its type."""
    if not config.get("auto_map") or config.get("model_type") == "kogata":
        return False
    place = importlib.util.find_spec("transformers")
    folder = str(config.get("model_type", "")).replace("-", "_")
    if place is None or not place.submodule_search_locations or not folder.isidentifier():
        return True
    return not (Path(place.submodule_search_locations[0]) / "models" / folder).is_dir()


def _number(config: dict[str, Any], field: str) -> int:
    value = config.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _not_ours(field, repr(value), "a whole number")
    return value


def _rope(
    config: dict[str, Any], silent_theta: float, family: str
) -> tuple[float, dict[str, Any] | None, dict[str, Any]]:
    """Reads base and scaling of the positions, and the family's further fields of them."""
    more: dict[str, Any] = {}
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if family == "gemma3":
        local = rope.get("sliding_attention") or {}
        more["local_rope_theta"] = float(
            local.get("rope_theta") or config.get("rope_local_base_freq") or 10_000.0
        )
        if local.get("rope_type", "default") != "default":
            raise _not_ours("rope_parameters.sliding_attention", str(local["rope_type"]), "default")
        rope = dict(rope.get("full_attention") or {}) if "full_attention" in rope or local else rope
    theta = rope.pop("rope_theta", None) or config.get("rope_theta") or silent_theta
    kind = rope.pop("rope_type", None) or rope.get("type") or "default"
    rope.pop("type", None)
    partial = rope.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor")
    partial = partial or FAMILY[family].rotary_share or 1.0
    if partial != 1.0 and FAMILY[family].rotary_share is None:
        raise _not_ours("partial_rotary_factor", str(partial), "1.0")
    more["partial"] = float(partial)
    for name in ("mrope_section", "mrope_interleaved"):
        # Text has the same position in all sections.
        rope.pop(name, None)
    if any(isinstance(value, dict) for value in rope.values()):
        raise _not_ours("rope_parameters", "one per kind of layer", "one for all layers")
    if kind == "default":
        return float(theta), None, more
    if kind not in ROPE_SCALINGS:
        raise _not_ours("rope_parameters.rope_type", str(kind), " | ".join(("default", *ROPE_SCALINGS)))
    if rope.get("factor") is None:
        raise _not_ours("rope_parameters.factor", "nothing", f"a number ({kind})")
    return float(theta), {"rope_type": kind, **{k: v for k, v in rope.items() if v is not None}}, more


def _rope_layers(config: dict[str, Any], layers: int) -> tuple[bool, ...] | None:
    given = config.get("no_rope_layers")
    if given is None:
        interval = int(config.get("no_rope_layer_interval", 4))
        given = [(layer + 1) % interval != 0 for layer in range(layers)]
    turned = tuple(bool(value) for value in given[:layers])
    return None if all(turned) else turned


def _not_ours(field: str, found: str, expected: str) -> DataError:
    return DataError(
        "our decoder cannot express this model", where=f"config.json: {field}", found=found, expected=expected
    )
