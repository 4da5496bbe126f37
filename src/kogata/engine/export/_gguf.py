"""Writes a Hugging Face folder as one GGUF file that llama.cpp loads; what the GGUF formats share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError
from kogata.engine.export import _gguf_hybrids as hybrids
from kogata.engine.export._common import Scored, Written
from kogata.nn.ffns import ffn_matrices
from kogata.nn.spec import FAMILIES, HYBRIDS, ModelSpec

# llama.cpp turns neighbouring pairs of a head here, transformers its two halves: rows are reordered.
_TURNS_NEIGHBOURS = ("llama", "smollm3", "arcee")
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK = 32
"""Weights that share a scale in q8_0."""
_SMOLLM3_EVERY = 4
"""llama.cpp gives every fourth layer of smollm3 no positions, whatever the file says."""


def refuse(facts: dict[str, Any]) -> str | None:
    """Says why llama.cpp has no graph for a model of these facts; None where it has one."""
    values = facts.get("spec")
    if not values:
        name = facts.get("architecture") or "this architecture"
        return f"{name}: GGUF files are written for {', '.join((*FAMILIES, *HYBRIDS))}"
    spec = ModelSpec.from_dict(values)
    if spec.family in HYBRIDS:
        return hybrids.refuse(spec)
    if spec.family not in FAMILIES:
        return f"the family {spec.family}: GGUF files are written for {', '.join((*FAMILIES, *HYBRIDS))}"
    if spec.mixers is not None and any(mixer != "full" for mixer in spec.mixers):
        other = next(mixer for mixer in spec.mixers if mixer != "full")
        return f"{spec.family} with the mixer {other}: llama.cpp knows full attention"
    expected = tuple((layer + 1) % _SMOLLM3_EVERY != 0 for layer in range(spec.layers))
    if spec.family == "smollm3" and tuple(map(spec.has_rope, range(spec.layers))) != expected:
        return f"smollm3 whose layers without positions are not every {_SMOLLM3_EVERY}th (llama.cpp's are)"
    if spec.rope_scaling is not None and spec.rope_scaling.get("rope_type") not in (
        "linear",
        "yarn",
        "llama3",
    ):
        return f"rope scaling {spec.rope_scaling.get('rope_type')}"
    return None


def forecast_bytes(facts: dict[str, Any], kind: str) -> int | None:
    """Counts the bytes of the file, vocabulary and padding included; None when the shape is unknown."""
    if not facts.get("spec"):
        return None
    spec = ModelSpec.from_dict(facts["spec"])
    total = 0
    for rows, columns in _shapes(spec):
        total += -(-_tensor_bytes(rows, columns, kind) // 32) * 32 + 80
    # Per token: its text, a type, and one merge of two texts; measured 41 to 46 bytes with the ids' lengths.
    return total + 44 * spec.vocab_size + 2048


def _shapes(spec: ModelSpec) -> Iterator[tuple[int, int]]:
    """Yields (rows, columns) of every matrix; a layer's vectors as one, which has no rows."""
    for _ in range(1 if spec.tied else 2):
        yield spec.vocab_size, spec.width
    norms = (4 if spec.sandwich_norms else 2) * spec.width
    for sizes in spec.layer_sizes():
        yield from (*sizes.matrices, *ffn_matrices(spec))
        yield 0, sizes.vectors + norms
    yield 0, spec.width


def _tensor_bytes(rows: int, columns: int, kind: str) -> int:
    if not rows or kind == "f32":
        return 4 * max(rows, 1) * columns
    if kind == "q8_0" and columns % _BLOCK == 0:
        return rows * columns // _BLOCK * (_BLOCK + 2)
    return 2 * rows * columns


def write(folder: Path, path: Path, kind: str) -> list[str]:
    """Writes the model in `folder` to `path`; returns what is worth saying.

    Args:
        folder: config.json, safetensors, tokenizer.json.
        path: the .gguf file.
        kind: `f32`, `f16` or `q8_0`: how matrices are stored. Vectors stay float32.

    Raises:
        DataError: llama.cpp could not load or would not tokenise the same.
    """
    import gguf

    from kogata.engine.export._tokenizer import gguf_tokenizer
    from kogata.engine.hf_config import spec_from_config
    from kogata.engine.hf_folder import read_config

    config = read_config(folder)
    spec = spec_from_config(config)
    reason = refuse({"spec": spec.to_dict()})
    if reason:
        raise DataError("llama.cpp has no graph for this model", where=str(folder), found=reason)
    beside = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(beside, hybrids.ARCHITECTURES.get(spec.family, spec.family))
    try:
        _write_shape(writer, spec, kind)
        for key, value in gguf_tokenizer(folder, spec.vocab_size, config).items():
            _add(writer, key, value)
        notes = _write_tensors(writer, folder, spec, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    beside.replace(path)
    return notes


def export(folder: Path, path: Path, facts: dict[str, Any], kind: str) -> Written:
    """Writes one GGUF file into a bundle."""
    return Written(notes=write(folder, path, kind), files=[path])


def score(path: Path, texts: Sequence[str], *, end_id: int, window: int) -> Scored:
    """Scores texts in llama.cpp, which tokenises them itself."""
    from kogata.engine import gguf_run

    found = gguf_run.score(path, texts, end_id=end_id, window=window)
    return Scored(loss=found.loss, tokens=found.tokens, ids=found.ids)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _write_shape(writer: Any, spec: ModelSpec, kind: str) -> None:
    import gguf

    from kogata.nn.rope import inverse_frequencies

    writer.add_type("model")
    writer.add_name(f"kogata {spec.family}")
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[file_types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn_width)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(hybrids.heads_kv(spec))
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_rope_dimension_count(spec.rotary_dim or spec.head_dim)
    writer.add_rope_freq_base(spec.rope_theta)
    hybrids.write_shape(writer, spec)
    scaling = spec.rope_scaling or {}
    if scaling.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(float(scaling["factor"]))
        if scaling["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(
                int(scaling.get("original_max_position_embeddings") or spec.context)
            )
            writer.add_rope_scaling_yarn_beta_fast(float(scaling.get("beta_fast") or 32))
            writer.add_rope_scaling_yarn_beta_slow(float(scaling.get("beta_slow") or 1))
            # llama.cpp multiplies its own gain in; what differs from it goes into the file.
            own = 0.1 * math.log(float(scaling["factor"])) + 1.0
            _, gain = inverse_frequencies(spec.head_dim, spec.rope_theta, scaling, spec.context)
            if abs(gain - own) > 1e-6:
                writer.add_rope_scaling_yarn_attn_factor(gain / own)


def _write_tensors(writer: Any, folder: Path, spec: ModelSpec, kind: str) -> list[str]:
    import gguf
    import numpy as np
    import torch
    from safetensors import safe_open

    from kogata.engine.hf_folder import weight_files

    stored = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
              "q8_0": gguf.GGMLQuantizationType.Q8_0}  # fmt: skip
    narrow: list[str] = []
    for name, file in sorted(weight_files(folder).items()):
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and spec.tied):
            continue
        with safe_open(file, framework="pt") as tensors:
            value = tensors.get_tensor(name).to(torch.float32).numpy()
        target = gguf_name(name, spec.family)
        value = hybrids.convert(spec, name, value)
        if spec.family in _TURNS_NEIGHBOURS and (".q_proj." in name or ".k_proj." in name):
            value = _neighbours(value, spec.heads if ".q_proj." in name else spec.kv_heads)
        kept = stored["f32"] if value.ndim == 1 or hybrids.stays_float32(name) else stored[kind]
        if kept == stored["q8_0"] and value.shape[-1] % _BLOCK:
            narrow.append(target)
            kept = stored["f16"]
        data = gguf.quants.quantize(np.ascontiguousarray(value), kept)
        writer.add_tensor(target, data, raw_dtype=kept)
    if (spec.rope_scaling or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(spec))
    if narrow:
        return [
            f"{len(narrow)} tensors stay in f16, their rows being no multiple of {_BLOCK}: "
            f"{', '.join(narrow[:3])}{' …' if len(narrow) > 3 else ''}"
        ]
    return []


def gguf_name(name: str, family: str) -> str:
    """Gives llama.cpp's name of a weight that transformers calls `name` in this family."""
    whole = hybrids.whole_name(name)
    if whole is not None:
        return whole
    stem, _, leaf = name.rpartition(".")
    tops, layers = {**_NAMES, **hybrids.top_names(family)}, {**_LAYER_NAMES, **hybrids.layer_names(family)}
    if stem in tops:
        return f"{tops[stem]}.{leaf}"
    parts = stem.split(".", 3)
    if len(parts) == 4 and parts[:2] == ["model", "layers"] and parts[3] in layers:
        return f"blk.{parts[2]}.{layers[parts[3]]}.{leaf}"
    raise DataError("a weight has no name in GGUF", where=name)


def _neighbours(value: Any, heads: int) -> Any:
    """Reorders the rows of each head from two halves to neighbouring pairs."""
    shape = value.shape
    return value.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def _llama3_factors(spec: ModelSpec) -> Any:
    """Gives by what llama.cpp divides each frequency (Llama 3.1's scaling)."""
    from kogata.nn.rope import inverse_frequencies

    plain, _ = inverse_frequencies(spec.head_dim, spec.rope_theta, None, spec.context)
    scaled, _ = inverse_frequencies(spec.head_dim, spec.rope_theta, spec.rope_scaling, spec.context)
    return (plain / scaled).numpy()
