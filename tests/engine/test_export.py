"""The export formats: names, cards, the Hugging Face folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import small_spec, write_small_model

from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.engine.export import hf
from kogata.engine.export._common import Format, format_names, get_format

PLAIN = """
import sys, json
sys.modules["kogata"] = None  # any import of it fails from here on
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
assert model.dtype == torch.float32, model.dtype
ids = tokenizer("The cat sat. 猫が座った。", return_tensors="pt", add_special_tokens=False).input_ids
made = model.generate(ids, max_new_tokens=8, do_sample=False)
with torch.no_grad():
    logits = model(ids).logits
print(json.dumps({"ids": ids[0].tolist(), "made": made[0].tolist(), "top": logits[0].argmax(-1).tolist(),
                  "end": model.generation_config.eos_token_id}))
"""


@pytest.mark.parametrize("family", ["llama", "qwen3", "arcee"])
def test_plain_transformers_loads_the_folder(family: str, tmp_path: Path) -> None:
    import torch

    decoder = write_small_model(tmp_path / "m", small_spec(family))
    (tmp_path / "m" / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    written = hf.write(tmp_path / "m", tmp_path / "hf", {"model": {"parameters": 5, "architecture": family}})
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert "metrics.jsonl" not in names and {"README.md", "config.json", "tokenizer.json"} <= names
    assert [path.name for path in written.files] == ["model.safetensors"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PLAIN, str(tmp_path / "hf")],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        ours = decoder(torch.tensor([found["ids"]]))[0]
    assert ours.argmax(-1).tolist() == found["top"] and found["end"] == 0


def test_formats_by_the_names_people_write() -> None:
    assert format_names() == ["gguf-f16", "gguf-f32", "gguf-q8_0", "hf"]
    for name in format_names():
        form = get_format(name)
        assert form.name == name and form.runtime in ("transformers", "llama.cpp") and form.tolerance < 0.1
    with pytest.raises(RecipeError):
        get_format("gguf-q9")


def test_a_plug_in_may_add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Format(
        name="mine", place="mine.bin", runtime="none", tolerance=0.0, refuse=lambda facts: None,
        forecast_bytes=lambda facts: 1, write=hf.write, score=hf.score,
    )  # fmt: skip
    monkeypatch.setitem(registry._variants, "engine.export", {"mine": mine})
    assert "mine" in format_names() and get_format("mine") is mine


@pytest.mark.parametrize("name", registry.variant_names("engine.export"))
def test_every_format_has_its_card(name: str) -> None:
    card = registry.variant("engine.export", name).__doc__
    for part in ("Pays when:", "Hurts when:", "Cost:", "Source:", "Measured here:"):
        assert part in card


def test_the_model_card_says_what_is_known_and_no_more() -> None:
    spec = small_spec("qwen3")
    text = hf.card(
        {"model": {"spec": spec.to_dict(), "architecture": "qwen3", "parameters": spec.parameters()}}
    )
    assert "| architecture | qwen3 |" in text and "corpus" not in text and "None" not in text
    assert "language:" not in text
    corpus = {"language_hint": "ja", "splits": {"train": {"documents": 1200, "bytes": 10**6}}}
    text = hf.card({"model": {"training": {"tokens": 5_000_000}}, "corpus": corpus})
    assert "language: ja" in text and "1,200 documents" in text and "5,000,000 tokens" in text
    assert "昔々" in text
