"""Folders that cannot be read say why; what is written is whole, equal and keeps its special ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import random_decoder, small_spec, write_small_model

from kogata.core.errors import DataError
from kogata.engine.convert import load_decoder, peer_tensors, save_decoder
from kogata.engine.hf_config import kind_of_model, needs_code, spec_from_config, try_spec
from kogata.engine.hf_folder import read_config


def test_written_weights_are_a_safetensors_file(tmp_path: Path) -> None:
    decoder = write_small_model(tmp_path, small_spec("qwen3", tied=False))
    tensors = load_file(tmp_path / "model.safetensors")
    named = dict(peer_tensors(decoder))
    assert list(named) == [name for name in named if torch.equal(tensors[name], named[name])]
    assert set(tensors) == set(named)
    assert not list(tmp_path.glob("*.part"))


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_small_model(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_special_ids_come_from_the_tokenizer_or_the_model(tmp_path: Path) -> None:
    write_small_model(tmp_path / "a")
    config = read_config(tmp_path / "a")
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 0)
    assert json.loads((tmp_path / "a" / "generation_config.json").read_text())["eos_token_id"] == 0
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps({**config, "eos_token_id": [5, 6], "bos_token_id": 4}))
    save_decoder(load_decoder(tmp_path / "a"), tmp_path / "b", tokenizer_files_from=tmp_path / "a")
    kept = read_config(tmp_path / "b")
    assert (kept["bos_token_id"], kept["eos_token_id"]) == (4, [5, 6])
    save_decoder(random_decoder(small_spec()), tmp_path / "c", end_id=9)
    assert read_config(tmp_path / "c")["eos_token_id"] == 9


def test_an_edited_weight_names_itself(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=f"missing(.|\n)*{name}"):
        load_decoder(tmp_path)
    save_file({**tensors, name: torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"does not fit(.|\n)*\[3, 3\](.|\n)*\[96, 64\]"):
        load_decoder(tmp_path)
    save_file({**tensors, "model.extra.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="model.extra.weight"):
        load_decoder(tmp_path)


def test_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"only pickled weights(.|\n)*pytorch_model.bin"):
        load_decoder(tmp_path)


def test_damaged_folders_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a model folder"):
        load_decoder(tmp_path)
    write_small_model(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*model.safetensors"):
        load_decoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"what?")
    with pytest.raises(DataError, match="cannot be read"):
        load_decoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no weights"):
        load_decoder(tmp_path)
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="model-00001-of-00002.safetensors"):
        load_decoder(tmp_path)
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="elsewhere"):
        load_decoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="config.json cannot be read"):
        load_decoder(tmp_path)


BASE = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_type": "mamba"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {
                "model_type": "smollm3",
                "num_key_value_heads": 4,
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention"] * 4,
            },
            "use_sliding_window",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "kv_heads"),
    ],
)
def test_what_our_decoder_cannot_express_is_named(change: dict, field: str) -> None:
    assert spec_from_config(BASE).kv_heads == 4
    with pytest.raises(DataError, match=rf"cannot express(.|\n)*{field}"):
        spec_from_config({**BASE, **change})
    assert try_spec({**BASE, **change}) is None


def test_kinds_of_models() -> None:
    assert kind_of_model({"architectures": ["LlamaForCausalLM"]}) == "decoder"
    assert kind_of_model({"architectures": ["GPT2LMHeadModel"]}) == "decoder"
    assert kind_of_model({"architectures": ["BertModel"]}) == "encoder"
    assert kind_of_model({"architectures": ["ModernBertForMaskedLM"]}) == "encoder"
    assert kind_of_model({"architectures": ["ViTForImageClassification"]}) == "other"
    assert kind_of_model({"architectures": ["LlavaForConditionalGeneration"]}) == "other"
    assert kind_of_model(BASE) == "decoder"
    assert not needs_code({"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}})
    assert needs_code({"model_type": "nobody-knows", "auto_map": {"AutoModel": "x.Y"}})
