"""Hugging Face folders ↔ Decoder with equal logits: fused matrices are split and joined, nothing else."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kogata.core.errors import DataError
from kogata.engine.hf_config import config_from_spec, spec_from_config
from kogata.engine.hf_folder import (
    copy_file,
    copy_tokenizer,
    read_config,
    safetensors_head,
    special_id,
    weight_files,
    write_json,
)
from kogata.engine.hf_hybrids import CODE
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LAYERS = {
    "mixer_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "mixer.out": "self_attn.o_proj",
    "mixer.q_norm": "self_attn.q_norm",
    "mixer.k_norm": "self_attn.k_norm",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
"""Our names in a block → transformers'."""
_PARTS = {"mixer": "self_attn", "ffn": "mlp"}
_FAMILY_LAYERS = {
    "gemma3": {
        "mixer_after": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_after": "post_feedforward_layernorm",
    },
    "lfm2": {
        "mixer_norm": "operator_norm",
        "ffn_norm": "ffn_norm",
        "mixer.out": "self_attn.out_proj",
        "mixer.q_norm": "self_attn.q_layernorm",
        "mixer.k_norm": "self_attn.k_layernorm",
        "ffn.down": "feed_forward.w2",
    },
}
"""What a family calls otherwise."""
_PIECES = {"lfm2": {"mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3"}}
_MIXER_LAYERS = {
    "short_conv": {
        "mixer.gates_in": "conv.in_proj", "mixer.out": "conv.out_proj", "mixer": {"taps": "conv.conv.weight"},
    },
    "gated_delta": {
        "mixer.out": "linear_attn.out_proj",
        "mixer.norm": "linear_attn.norm",
        "mixer": {
            "taps": "linear_attn.conv1d.weight", "decay": "linear_attn.A_log", "bias": "linear_attn.dt_bias",
        },
    },
}  # fmt: skip
"""What a mixer's weights are called, where they are not attention's; a weight of the mixer itself in full."""
_LAST_NORM = {"lfm2": "model.embedding_norm.weight"}


def peer_tensors(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Gives every weight under the name transformers knows it by, as a view: writing into it writes ours."""
    family = decoder.spec.family
    if family == "kogata":
        # Only our own class loads these: the names are ours.
        for name, weight in decoder.named_parameters():
            yield f"decoder.{name}", weight.data
        return
    yield "model.embed_tokens.weight", decoder.embed.weight.data
    for layer, block in enumerate(decoder.layers()):
        mixer = decoder.spec.mixer(layer)
        names: dict[str, Any] = {
            **_LAYERS, **_FAMILY_LAYERS.get(family, {}), **_MIXER_LAYERS.get(mixer, {})
        }  # fmt: skip
        prefixes = {**_PARTS, "mixer": "linear_attn" if mixer == "gated_delta" else "self_attn"}
        fused: dict[str, tuple[str, dict[str, int]]] = {}
        for part, peer in prefixes.items():
            for name, rows in getattr(block, part).parts().items():
                fused[f"{part}.{name}"] = (peer, rows)
        for name, weight in block.named_parameters():
            module, _, leaf = name.rpartition(".")
            if module in fused:
                peer, rows = fused[module]
                for piece, view in zip(rows, weight.data.split(list(rows.values())), strict=True):
                    stem = f"{peer}.{piece}"
                    stem = _PIECES.get(family, {}).get(stem, stem)
                    yield f"model.layers.{layer}.{stem}.{leaf}", view
            elif module == "mixer":
                yield f"model.layers.{layer}.{names[module][leaf]}", weight.data
            else:
                yield f"model.layers.{layer}.{names[module]}.{leaf}", weight.data
    yield _LAST_NORM.get(family, "model.norm.weight"), decoder.norm.weight.data
    if decoder.head is not None:
        yield "lm_head.weight", decoder.head.weight.data


def fill(
    decoder: Decoder,
    names: set[str],
    get: Callable[[str], Tensor],
    source: str,
    done: Callable[[str, Tensor], None] | None = None,
) -> Decoder:
    """Copies tensors by transformers' names into the decoder, one at a time; half precision is widened.

    Args:
        decoder: whose weights are overwritten.
        names: all names the source has.
        get: reads one of them.
        source: the file or folder, for messages.
        done: is told each tensor of ours once it is filled.

    Raises:
        DataError: a tensor is missing, surplus or of another shape.
    """
    left = {name for name in names if not name.endswith("rotary_emb.inv_freq")}
    if decoder.head is None:
        left.discard("lm_head.weight")
    for name, target in peer_tensors(decoder):
        if name not in left:
            raise DataError("a weight is missing", where=source, found="no such tensor", expected=name)
        value = get(name)
        if value.shape != target.shape:
            raise DataError(
                "a weight does not fit config.json",
                where=f"{source}: {name}",
                found=str(list(value.shape)),
                expected=str(list(target.shape)),
            )
        target.copy_(value)
        if done is not None:
            done(name, target)
        left.discard(name)
    if left:
        some = ", ".join(sorted(left)[:4])
        raise DataError(
            "the checkpoint has weights that this model does not use",
            where=source,
            found=f"{len(left)} tensors: {some}{' …' if len(left) > 4 else ''}",
            expected="only the weights of the architecture in config.json",
        )
    return decoder


def load_decoder(folder: str | Path) -> Decoder:
    """Reads a Hugging Face folder into our decoder, in float32.

    Raises:
        DataError: the folder is no model, is damaged, or our decoder cannot express it.
    """
    folder = Path(folder)
    decoder = Decoder(spec_from_config(read_config(folder)), seed=None)
    names, get = tensor_reader(folder)
    return fill(decoder, names, get, str(folder))


def tensor_reader(folder: Path) -> tuple[set[str], Callable[[str], Tensor]]:
    """Lists the tensors of a folder, and gives what reads one.

    Each is read into memory of its own: of a mapped file every page that was looked at would count as held.
    """
    files = weight_files(folder)
    entries: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for path in set(files.values()):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        for name, entry in safetensors_head(path).items():
            entries[name] = path, 8 + length, entry

    def get(name: str) -> Tensor:
        path, base, entry = entries[name]
        kind = _TYPES.get(entry["dtype"])
        if kind is None:
            raise DataError(
                "the weights are of a type that cannot be read here",
                where=f"{path}: {name}",
                found=entry["dtype"],
                expected=", ".join(_TYPES),
            )
        start, stop = entry["data_offsets"]
        data = np.fromfile(path, dtype=np.uint8, count=stop - start, offset=base + start)
        return torch.from_numpy(data).view(kind).view(entry["shape"])

    return set(entries), get


def save_decoder(
    decoder: Decoder,
    folder: str | Path,
    *,
    tokenizer_files_from: str | Path | None = None,
    end_id: int | None = None,
    special_ids: Mapping[str, Any] | None = None,
) -> None:
    """Writes a Hugging Face folder that plain transformers loads: config, weights, tokenizer.

    Args:
        decoder: the model.
        folder: where to write; made when missing.
        tokenizer_files_from: a folder whose tokenizer files are copied; where it is a model's folder, its
            special ids and generation settings are kept too.
        end_id: the id that ends a text and stands before its start; by default read from the tokenizer.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id` to write, where the caller knows better.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = None if tokenizer_files_from is None else Path(tokenizer_files_from)
    ids = dict(special_ids) if special_ids is not None else _special_ids(source, end_id)
    write_weights(dict(peer_tensors(decoder)), folder / "model.safetensors")
    write_json(folder / "config.json", config_from_spec(decoder.spec, ids))
    if decoder.spec.family == "kogata":
        copy_file(Path(__file__).with_name("remote_code.py"), folder / CODE)
    generation = None if source is None else source / "generation_config.json"
    if generation is not None and generation.exists() and end_id is None and special_ids is None:
        copy_file(generation, folder / generation.name)
    else:
        write_json(folder / "generation_config.json", {k: v for k, v in ids.items() if v is not None})
    if source is not None:
        copy_tokenizer(source, folder)


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes float32 tensors as a safetensors file, one after another: no second copy in memory.

    Written beside its place and renamed.
    """
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32, f"{name} is {tensor.dtype}"
        start, end = end, end + 4 * tensor.numel()
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
    os.replace(beside, path)


def _special_ids(source: Path | None, end_id: int | None) -> dict[str, Any]:
    if end_id is None and source is not None and (source / "config.json").exists():
        config = read_config(source)
        return {key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    end = special_id(source) if end_id is None and source is not None else end_id
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}


def load_spec(folder: str | Path) -> ModelSpec:
    """Reads only the shape of the model in a folder."""
    return spec_from_config(read_config(Path(folder)))


@torch.no_grad()
def largest_difference(decoder: Decoder, other: torch.nn.Module, ids: Tensor) -> float:
    """Measures how far our logits lie from those of a transformers module on the same ids."""
    return float((decoder(ids) - other(input_ids=ids).logits).abs().max())
