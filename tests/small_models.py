"""Small random models as files, for tests: Hugging Face folders and GGUF files, tokenizer included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from kogata.engine.convert import peer_tensors, save_decoder
from kogata.engine.hf_folder import write_json
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec

TEXT = "The cat sat on the mat by the sea. 猫が海辺のござに座った。123 cats, 45 mats!\n" * 40


def small_spec(family: str = "llama", **more: object) -> ModelSpec:
    sizes = {"vocab_size": 320, "layers": 4, "width": 64, "heads": 4, "kv_heads": 2, "ffn_width": 96}
    if family == "smollm3":
        more.setdefault("rope_layers", (True, True, True, False))
    return ModelSpec.of_family(family, **{**sizes, "context": 64, "norm_eps": 1e-5, **more})


def random_decoder(spec: ModelSpec, seed: int = 0) -> Decoder:
    decoder = Decoder(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return decoder.eval()


def write_small_tokenizer(folder: Path, vocab_size: int = 320) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken("<|endoftext|>", special=True, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    write_json(folder / "tokenizer_config.json", config)
    return tokenizer


def write_small_model(folder: Path, spec: ModelSpec | None = None, seed: int = 0) -> Decoder:
    decoder = random_decoder(spec or small_spec(), seed)
    write_small_tokenizer(folder, decoder.spec.vocab_size)
    save_decoder(decoder, folder, tokenizer_files_from=folder)
    return decoder


def write_small_gguf(path: Path, decoder: Decoder, tokenizer: Tokenizer, *, pre: str = "gpt-2") -> None:
    """Writes the layout llama.cpp's converter writes, the order of query and key rows included."""
    import gguf

    spec = decoder.spec
    writer = gguf.GGUFWriter(path, spec.family)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn_width)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token == "<|endoftext|>" else 1 for token, _ in vocabulary])
    import json

    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    theirs = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tops = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, tensor in peer_tensors(decoder):
        stem, _, leaf = name.rpartition(".")
        if stem in tops:
            renamed = tops[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            renamed = f"blk.{layer}.{theirs[part]}"
        value = tensor.numpy()
        for piece, heads in (("q_proj", spec.heads), ("k_proj", spec.kv_heads)):
            if piece in name and spec.family in ("llama", "smollm3", "arcee"):
                rows = value.reshape(heads, 2, spec.head_dim // 2, *value.shape[1:])
                value = rows.swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(f"{renamed}.{leaf}", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
