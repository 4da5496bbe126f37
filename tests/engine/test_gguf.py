"""GGUF files in llama.cpp: the same ids, the same figures, the same continuation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from small_models import random_decoder, small_spec, write_small_model

from kogata.core.errors import ArtifactError, DataError
from kogata.engine import evaluate, gguf_run
from kogata.engine.export import _gguf, _tokenizer
from kogata.engine.generate import generate

TEXT = (
    "The cat sat on the mat by the sea, and I'll say we've 1234 cats. 猫がござに座った。「そうですか」\n" * 4
)
ODD = [
    "  two  spaces\tand a tab", "a\r\nb\n\n\nc", "I'M HERE don't WE'LL", "3.14 １２３ 12345",
    "👩‍👩‍👧 🇯🇵", "ｶﾞ é é ﬁ",
    "<|endoftext|> in text", "\u3000字下げ。", "नमस्ते العربية", "\u00a0\u200b", " ", "\n",
    "𠮷野家", "", "猫" * 300,
]  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SHAPES = {
    "llama": {},
    "llama scaled": {"rope_scaling": LLAMA3},
    "llama linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama yarn": {"rope_scaling": YARN},
    "qwen2": {},
    "qwen3": {"head_dim": 32, "tied": False},
    "smollm3": {},
    "arcee": {},
    "gemma3": {
        "mixers": ("window",) * 3 + ("full",),
        "mixer_settings": ({"size": 16},) * 3 + ({},),
        "head_dim": 32,
    },
    "gemma3 every second": {
        "mixers": ("window", "full") * 2,
        "mixer_settings": ({"size": 16}, {}) * 2,
        "tied": False,
    },
    "lfm2": {"tied": False},
    "qwen3_5": {"head_dim": 32},
    "qwen3_5 every second": {"mixers": ("gated_delta", "gated_full") * 2, "tied": False},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", SHAPES)
def test_f32_computes_what_the_model_computes(name: str, tmp_path: Path) -> None:
    decoder = write_small_model(tmp_path, small_spec(name.split()[0], **SHAPES[name]))
    path = tmp_path / "model.gguf"
    assert _gguf.write(tmp_path, path, "f32") == []
    encode = evaluate.encoder(tmp_path)
    documents = list(evaluate.encode_documents(encode, [TEXT, "a"]))
    ours = evaluate.bits_per_byte(decoder, documents, end_id=0, window=64)
    theirs = gguf_run.score(path, [TEXT, "a"], end_id=0, window=64)
    assert theirs.ids == encode([TEXT, "a"]) and theirs.tokens == ours.tokens
    assert theirs.loss / math.log(2) / ours.bytes == pytest.approx(ours.value, abs=1e-4)
    prompts = [[0, *ids] for ids in encode(["The cat", "猫が", "I'll say", "12", "「そう"])]
    for prompt, found in zip(prompts, gguf_run.greedy(path, prompts, 32, end_id=0), strict=True):
        made = generate(decoder, prompt, 32, end_id=0)
        assert [token for token in found if token != 0] == made


def test_forecast_of_size(tmp_path: Path) -> None:
    for family in ("llama", "qwen3", "arcee"):
        spec = small_spec(family, tied=False)
        write_small_model(tmp_path, spec)
        for kind in ("f32", "f16", "q8_0"):
            _gguf.write(tmp_path, tmp_path / "m.gguf", kind)
            size = (tmp_path / "m.gguf").stat().st_size
            forecast = _gguf.forecast_bytes({"spec": spec.to_dict()}, kind)
            assert forecast is not None and abs(forecast - size) < 0.05 * size + 8192, (family, kind)


def test_q8_0_keeps_rows_that_do_not_fit_in_f16_and_says_so(tmp_path: Path) -> None:
    decoder = write_small_model(tmp_path, small_spec("qwen3", width=72, heads=4, head_dim=32))
    notes = _gguf.write(tmp_path, tmp_path / "m.gguf", "q8_0")
    assert len(notes) == 1 and "f16" in notes[0] and "multiple of 32" in notes[0]
    documents = list(evaluate.encode_documents(evaluate.encoder(tmp_path), [TEXT]))
    ours = evaluate.bits_per_byte(decoder, documents, end_id=0, window=64)
    theirs = gguf_run.score(tmp_path / "m.gguf", [TEXT], end_id=0, window=64)
    assert theirs.loss / math.log(2) / ours.bytes == pytest.approx(ours.value, abs=0.02)


@pytest.mark.parametrize("units", ["bpe", "characters"])
@pytest.mark.parametrize("pre", ["gpt-2", "qwen2"])
def test_token_ids_agree(units: str, pre: str, tmp_path: Path, root: Path) -> None:
    import gzip

    from kogata.core.registry import registry
    from kogata.engine.convert import save_decoder
    from kogata.engine.tokenizer import save

    english = gzip.decompress(sorted((root / "examples/data/novels").glob("*.gz"))[0].read_bytes()).decode()
    stories = sorted((root / "examples/data/aozora").glob("*.jsonl.gz"))[0]
    with gzip.open(stories, "rt", encoding="utf-8") as rows:
        japanese = "".join(json.loads(row)["text"] + "\n" for row, _ in zip(rows, range(12), strict=False))
    way = registry.variant("engine.vocabulary", units)
    tokenizer = way.train([english[:60_000], japanese[:30_000]], 1500 if units == "bpe" else None, pre)
    save(tokenizer, tmp_path)
    size = tokenizer.get_vocab_size()
    save_decoder(random_decoder(small_spec(vocab_size=size)), tmp_path, tokenizer_files_from=tmp_path)
    _gguf.write(tmp_path, tmp_path / "m.gguf", "f16")
    lines = [line for line in english[200_000:].splitlines() if line.strip()][:500]
    lines += [line for line in japanese[30_000:].splitlines() if line.strip()][:500]
    assert len(lines) > 600
    for texts in (lines, ODD):
        ours, theirs = evaluate.encoder(tmp_path)(texts), gguf_run.tokenize(tmp_path / "m.gguf", texts)
        wrong = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
        assert not wrong, wrong[:3]


def test_a_vocabulary_without_merges_loads(tmp_path: Path) -> None:
    write_small_model(tmp_path, small_spec(vocab_size=320))
    described = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["merges"] = []
    described["model"]["vocab"] = {
        token: number
        for token, number in described["model"]["vocab"].items()
        if len(token) == 1 or number == 0
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    _gguf.write(tmp_path, tmp_path / "m.gguf", "q8_0")
    assert gguf_run.tokenize(tmp_path / "m.gguf", ODD) == evaluate.encoder(tmp_path)(ODD)


def test_sharing_the_windows_out_changes_nothing(tmp_path: Path) -> None:
    write_small_model(tmp_path, small_spec("qwen3"))
    path = tmp_path / "m.gguf"
    _gguf.write(tmp_path, path, "f32")
    one = gguf_run.score(path, [TEXT], end_id=0, window=8, processes=1)
    two = gguf_run.score(path, [TEXT], end_id=0, window=8, processes=2)
    assert two.loss == pytest.approx(one.loss, abs=1e-9) and two.ids == one.ids and two.tokens == one.tokens


def test_what_llama_cpp_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(ArtifactError, match=r"llama\.cpp cannot use the file"):
        gguf_run.tokenize(path, ["a"])


DELTA = ("gated_delta",) * 4


def test_what_has_no_graph_is_refused_by_name() -> None:
    refuse = _gguf.refuse
    assert refuse({"spec": small_spec("arcee").to_dict()}) is None
    assert "gpt2" in str(refuse({"spec": None, "architecture": "gpt2"}))
    plain = small_spec("smollm3", rope_layers=(True, False, True, True))
    assert "smollm3" in str(refuse({"spec": plain.to_dict()}))
    for family, change, reason in (
        ("gemma3", {"mixers": ("full", "window") * 2}, "every n-th"),
        ("gemma3", {"local_rope_theta": 5e3}, "rotary base"),
        ("lfm2", {"mixers": ("short_conv",) * 4}, "without attention"),
        ("qwen3_5", {"mixers": ("gated_full", "gated_delta") * 2}, "every n-th"),
        ("qwen3_5", {"mixers": DELTA, "mixer_settings": ({"value_dim": 8},) * 4}, "differ in size"),
        ("qwen3", {"mixers": ("window", "full") * 2}, "window"),
        ("kogata", {}, "kogata"),
    ):
        assert reason in str(refuse({"spec": small_spec(family, **change).to_dict()})), family


def test_a_tokenizer_that_would_differ_is_refused(tmp_path: Path) -> None:
    write_small_model(tmp_path, small_spec())
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    for change in (
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": described["model"] | {"type": "Unigram"}},
    ):
        file.write_text(json.dumps(described | change), encoding="utf-8")
        with pytest.raises(DataError, match="would not tokenise"):
            _gguf.write(tmp_path, tmp_path / "m.gguf", "f32")
        assert not list(tmp_path.glob("*.gguf")), "nothing half-written"


def test_pre_tokenisers_by_their_expression() -> None:
    from kogata.engine.tokenizer import PRE_TOKENIZERS, blank

    for name in PRE_TOKENIZERS:
        assert _tokenizer.pre_of(json.loads(blank(name).to_str())) == name
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    both = {"type": "Sequence", "pretokenizers": [digits, byte_level]}
    assert _tokenizer.pre_of({"pre_tokenizer": both}) == "smollm"
    assert _tokenizer.pre_of({"pre_tokenizer": byte_level | {"add_prefix_space": True}}) is None
    assert _tokenizer.pre_of({"pre_tokenizer": None}) is None
