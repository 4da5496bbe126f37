"""A GGUF file → Decoder in float32, and the tokenizer's files: dequantised, llama.cpp's order undone."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kogata.core.errors import DataError
from kogata.engine.convert import fill, save_decoder
from kogata.engine.gguf_header import GgufHeader, TensorPlace, read_header, spec_from_gguf
from kogata.engine.gguf_pieces import KINDS, build_pieces
from kogata.engine.hf_folder import write_json
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

# llama.cpp turns neighbours (pairs 0-1, 2-3, …) in these graphs: its files hold query and key rows reordered.
_REORDERED = ("llama", "smollm3", "arcee")

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# llama.cpp's name of a pre-tokeniser → the regular expression texts are cut by before byte-level BPE.
# None: ByteLevel's own (GPT-2's).
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_PRE: dict[str, tuple[bool, str | None]] = {
    "default": (False, None),
    "gpt-2": (False, None),
    "smollm": (True, None),
    "llama-bpe": (False, _LLAMA3),
    "llama3": (False, _LLAMA3),
    "qwen2": (False, _QWEN2),
}


def load_gguf(path: str | Path) -> Decoder:
    """Reads a GGUF file into our decoder.

    Raises:
        DataError: the file is damaged, or our decoder cannot express its graph.
    """
    header = read_header(path)
    spec = spec_from_gguf(header)
    decoder = Decoder(spec, seed=None)
    with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # The table of frequencies is in the spec already.
        kept = {name: place for name, place in header.tensors.items() if name != "rope_freqs.weight"}
        places = {_peer_name(name): place for name, place in kept.items()}

        def get(name: str) -> Tensor:
            value = torch.from_numpy(_dequantise(header, places[name], data))
            heads = {".q_proj.": spec.heads, ".k_proj.": spec.kv_heads}
            for piece, count in heads.items():
                if piece in name and spec.family in _REORDERED:
                    return _halves_first(value, count)
            return value

        return fill(decoder, set(places), get, str(path))


def convert_gguf(path: str | Path, folder: str | Path) -> ModelSpec:
    """Writes the Hugging Face folder of a GGUF file: float32 safetensors, config, tokenizer."""
    header, folder = read_header(path), Path(folder)
    decoder = load_gguf(path)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(header, folder)
    ids = {role: header.settings.get(f"tokenizer.ggml.{name}_token_id") for role, name in _ROLES.items()}
    known = {f"{role}_token_id": value for role, value in ids.items() if value is not None}
    save_decoder(decoder, folder, special_ids=known)
    return decoder.spec


_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding"}


def write_tokenizer(header: GgufHeader, folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` from a GGUF file's own vocabulary."""
    tokenizer, config = build_tokenizer(header)
    beside = folder / "tokenizer.json.part"
    tokenizer.save(str(beside))
    beside.replace(folder / "tokenizer.json")
    write_json(folder / "tokenizer_config.json", config)


def build_tokenizer(header: GgufHeader) -> tuple[Any, dict[str, Any]]:
    """Rebuilds a GGUF file's tokenizer (`tokenizers.Tokenizer`) and what stands in tokenizer_config.json.

    Raises:
        DataError: it is neither SentencePiece's nor byte-level BPE whose pre-tokeniser we know.
    """
    from tokenizers import AddedToken, processors

    settings = header.settings
    pieces = settings.get("tokenizer.ggml.model") in KINDS
    tokens: list[str] = settings["tokenizer.ggml.tokens"]
    kinds: list[int] = settings.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    tokenizer = build_pieces(settings) if pieces else _byte_level(header)
    # 3: control tokens, 4: the user's own. Both are matched whole; control tokens are special.
    for kind, special in ((3, True), (4, False)):
        chosen = [token for token, one in zip(tokens, kinds, strict=True) if one == kind]
        tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in chosen])
    start = settings.get("tokenizer.ggml.bos_token_id")
    begins = settings.get("tokenizer.ggml.add_bos_token", settings.get("tokenizer.ggml.model") == "llama")
    if begins and start is not None:
        piece = tokens[start]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[piece, "$A"], pair=[piece, "$A", piece, "$B"], special_tokens=[(piece, start)]
        )
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False}
    config["model_max_length"] = header.of_architecture("context_length")
    for role in ("bos", "eos", "unknown", "padding"):
        index = settings.get(f"tokenizer.ggml.{role}_token_id")
        if index is not None and index < len(tokens):
            short = {"unknown": "unk", "padding": "pad"}.get(role, role)
            config[f"{short}_token"] = tokens[index]
    if settings.get("tokenizer.chat_template"):
        config["chat_template"] = settings["tokenizer.chat_template"]
    return tokenizer, config


def _byte_level(header: GgufHeader) -> Any:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    settings = header.settings
    model, pre = settings.get("tokenizer.ggml.model"), str(settings.get("tokenizer.ggml.pre", "default"))
    if model != "gpt2" or pre not in _PRE:
        raise DataError(
            "the tokenizer in this GGUF file is of a kind we cannot rebuild",
            where=f"{header.path}: tokenizer.ggml.{'pre' if model == 'gpt2' else 'model'}",
            found=pre if model == "gpt2" else str(model),
            expected=f"model gpt2 with pre {' | '.join(_PRE)}; or model {' | '.join(KINDS)}",
            remedy="use the model's Hugging Face folder instead",
        )
    tokens: list[str] = settings["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in settings["tokenizer.ggml.merges"]]
    digits, pattern = _PRE[pre]
    tokenizer = Tokenizer(
        BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, ignore_merges=pattern == _LLAMA3)
    )
    if pattern == _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern is not None:
        from tokenizers import Regex

        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _peer_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    _, layer, part = (*stem.split(".", 2), "", "")[:3]
    return f"model.layers.{layer}.{_LAYER[part]}.{leaf}" if part in _LAYER else name


def _dequantise(header: GgufHeader, place: TensorPlace, data: mmap.mmap) -> np.ndarray:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(place.type_id)
    block, size = GGML_QUANT_SIZES[kind]
    count = int(np.prod(place.shape))
    length = count // block * size
    if place.offset + length > len(data):
        raise DataError(
            "the GGUF file is cut off",
            where=f"{header.path}: {place.name}",
            found=f"{len(data)} bytes",
            expected=f"at least {place.offset + length} bytes",
            remedy="download it again",
        )
    raw = np.frombuffer(data[place.offset : place.offset + length], dtype=np.uint8)
    try:
        values = dequantize(raw.reshape(-1, place.shape[-1] // block * size), kind)
    except NotImplementedError:
        raise DataError(
            "the GGUF file's format of numbers cannot be read",
            where=f"{header.path}: {place.name}",
            found=kind.name,
            expected="F32, F16, BF16, or a quantisation that the gguf library dequantises",
        ) from None
    # A copy, because the file is closed after reading while the decoder lives on.
    return np.array(values, dtype=np.float32).reshape(place.shape)


def _halves_first(value: Tensor, heads: int) -> Tensor:
    """Undoes llama.cpp's order: rows of a head stand as pairs there, as two halves here."""
    rows = value.shape[0] // heads
    rest = value.shape[1:]
    return value.reshape(heads, rows // 2, 2, *rest).transpose(1, 2).reshape(value.shape)
