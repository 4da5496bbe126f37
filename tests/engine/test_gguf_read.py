"""GGUF files become our decoder: each family, each format of numbers, the real model too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import random_decoder, small_spec, write_small_gguf, write_small_tokenizer
from tokenizers import Tokenizer

from kogata.core.errors import DataError
from kogata.engine.convert import largest_difference, load_decoder, peer_tensors
from kogata.engine.gguf_header import read_header, spec_from_gguf
from kogata.engine.gguf_read import convert_gguf, load_gguf
from kogata.engine.load import load_model
from kogata.nn.spec import FAMILIES

IDS = torch.randint(0, 320, (1, 30), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_read_exactly(family: str, tmp_path: Path) -> None:
    decoder = random_decoder(small_spec(family, tied=family != "llama", rope_theta=5e4))
    write_small_gguf(tmp_path / "m.gguf", decoder, write_small_tokenizer(tmp_path))
    assert spec_from_gguf(read_header(tmp_path / "m.gguf")) == decoder.spec
    read = load_gguf(tmp_path / "m.gguf")
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), decoder.parameters(), strict=True))


def test_folder_and_tokenizer_of_a_gguf_file(tmp_path: Path) -> None:
    decoder = random_decoder(small_spec())
    tokenizer = write_small_tokenizer(tmp_path)
    write_small_gguf(tmp_path / "m.gguf", decoder, tokenizer)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert torch.equal(load_decoder(tmp_path / "out")(IDS), decoder(IDS))
    again = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for text in ("The cat sat.", "猫が海辺に座った。", "  two  spaces\n\n", "x<|endoftext|>y", "１２３ 123"):
        assert again.encode(text).ids == tokenizer.encode(text).ids
        assert again.decode(again.encode(text).ids, skip_special_tokens=False) == text
    loaded = load_model(tmp_path / "m.gguf")
    assert loaded.end_ids == (0,) and loaded.spec == decoder.spec
    assert loaded.encode("The cat") == tokenizer.encode("The cat").ids


def test_a_beginning_is_put_before_texts_where_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    tokenizer = write_small_tokenizer(tmp_path)
    add = gguf.GGUFWriter.add_bos_token_id

    def add_both(self: gguf.GGUFWriter, number: int) -> None:
        add(self, number)
        self.add_add_bos_token(True)

    monkeypatch.setattr(gguf.GGUFWriter, "add_bos_token_id", add_both)
    write_small_gguf(tmp_path / "m.gguf", random_decoder(small_spec()), tokenizer)
    loaded = load_model(tmp_path / "m.gguf")
    assert loaded.tokenizer.encode("The cat").ids == [0, *tokenizer.encode("The cat").ids]
    assert loaded.encode("The cat") == tokenizer.encode("The cat").ids


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_found_behind_its_table(
    factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    from kogata.nn.rope import inverse_frequencies

    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    spec = small_spec(rope_scaling=scaling, rope_theta=5e5, head_dim=64)
    plain, _ = inverse_frequencies(64, 5e5, None, 64)
    scaled, _ = inverse_frequencies(64, 5e5, scaling, 64)
    table = (plain / scaled).numpy()
    write = gguf.GGUFWriter.write_header_to_file

    def write_with_table(self: gguf.GGUFWriter, *more: object) -> None:
        self.add_tensor("rope_freqs.weight", table)
        write(self)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", write_with_table)
    tokenizer = write_small_tokenizer(tmp_path)
    write_small_gguf(tmp_path / "m.gguf", random_decoder(spec), tokenizer)
    assert load_gguf(tmp_path / "m.gguf").spec == spec
    table = table * 1.5
    write_small_gguf(tmp_path / "n.gguf", random_decoder(spec), tokenizer)
    with pytest.raises(DataError, match="rope_freqs"):
        spec_from_gguf(read_header(tmp_path / "n.gguf"))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_formats_of_numbers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf
    from gguf.quants import dequantize, quantize

    decoder = random_decoder(small_spec("qwen2"))
    add = gguf.GGUFWriter.add_tensor
    quantised = gguf.GGMLQuantizationType[kind]

    def add_quantised(self: gguf.GGUFWriter, name: str, value: np.ndarray, **more: object) -> None:
        if value.ndim == 2:
            add(self, name, quantize(value, quantised), raw_dtype=quantised)
        else:
            add(self, name, value)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_quantised)
    write_small_gguf(tmp_path / "m.gguf", decoder, write_small_tokenizer(tmp_path))
    read = load_gguf(tmp_path / "m.gguf")
    down = decoder.layers()[0].ffn.down.weight.detach().numpy()
    expected = dequantize(quantize(down, quantised), quantised)
    assert np.array_equal(read.layers()[0].ffn.down.weight.detach().numpy(), expected)


def test_what_is_no_gguf_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(DataError, match=r"not a GGUF file(.|\n)*m.gguf"):
        read_header(path)
    write_small_gguf(path, random_decoder(small_spec()), write_small_tokenizer(tmp_path))
    content = path.read_bytes()
    for length in (20, 400, 2000, 4000):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="not a GGUF file"):
            read_header(path)
    path.write_bytes(content[:-5000])
    with pytest.raises(DataError, match="cut off"):
        load_gguf(path)
    with pytest.raises(DataError, match="no such file"):
        read_header(tmp_path / "other.gguf")


def test_a_tokenizer_we_cannot_rebuild_is_named(tmp_path: Path) -> None:
    tokenizer = write_small_tokenizer(tmp_path)
    write_small_gguf(tmp_path / "m.gguf", random_decoder(small_spec()), tokenizer, pre="tekken")
    with pytest.raises(DataError, match=r"tokenizer.ggml.pre(.|\n)*tekken"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out")


@pytest.mark.slow
def test_the_real_model_equals_transformers(smollm2_gguf: Path, tmp_path: Path) -> None:
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    convert_gguf(smollm2_gguf, tmp_path)
    ours = load_decoder(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config)
    # Transformers' own dequantisation and order of rows, without the package its from_pretrained asks for.
    theirs = load_gguf_checkpoint(str(smollm2_gguf), return_tensors=True, model_to_load=empty)["tensors"]
    named = dict(peer_tensors(ours))
    assert set(theirs) - {"lm_head.weight"} == set(named)
    assert all(torch.equal(named[name], theirs[name]) for name in named)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode("The little house stood on the hill, 海のそばに。").ids])
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert largest_difference(ours, peer, ids) < 1e-4


@pytest.mark.slow
def test_the_real_tokenizer_equals_transformers(smollm2_gguf: Path, tmp_path: Path) -> None:
    import transformers

    from kogata.engine.gguf_read import write_tokenizer

    write_tokenizer(read_header(smollm2_gguf), tmp_path)
    ours = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    texts = [
        "The cat sat on 1234 mats.",
        "小さなモデルを 2026年に学習する。\n\n  x",
        "<|im_start|>user\nhi<|im_end|>",
    ]
    for text in texts:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    chat = [{"role": "user", "content": "Hi"}]
    assert "<|im_start|>user\nHi<|im_end|>" in ours.apply_chat_template(chat, tokenize=False)
