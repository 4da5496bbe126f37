"""A Hugging Face folder that plain transformers loads, with a model card: config, safetensors, tokenizer.

Pays when: the model goes on in Python: fine-tuning, evaluation, a hub.
Hurts when: size matters: weights are float32, 4 bytes each.
Cost: 4 bytes a weight; a copy.
Source: the folder layout of transformers.
Measured here: not yet measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError
from kogata.engine.export._common import Format, Scored, Written

_OURS = ("manifest.json", "metrics.jsonl", "training.json", "README.md")
_KEPT = (".json", ".safetensors", ".jinja", ".txt", ".model")


def refuse(facts: dict[str, Any]) -> str | None:
    """Says why the model has no such folder; a model artifact always is one."""
    return None


def forecast_bytes(facts: dict[str, Any]) -> int | None:
    """Counts the bytes of the weights; None when their number is unknown."""
    parameters = facts.get("parameters")
    return None if parameters is None else 4 * int(parameters) + 120 * 12 * _layers(facts) + 2048


def _layers(facts: dict[str, Any]) -> int:
    return int((facts.get("spec") or {}).get("layers", 12))


def write(folder: Path, out: Path, facts: dict[str, Any]) -> Written:
    """Copies what transformers reads and writes the card."""
    out.mkdir(parents=True, exist_ok=True)
    for item in sorted(folder.iterdir()):
        if item.is_file() and item.name not in _OURS and item.suffix in _KEPT:
            shutil.copyfile(item, out / item.name)
    # A classifier of n-grams, a tagger by features has no config: Kogata alone loads it.
    if not any((out / name).is_file() for name in ("config.json", "classifier.json", "tagger.json")):
        raise DataError(
            "not a model folder", where=str(folder), found="no config.json", expected="a Hugging Face folder"
        )
    (out / "README.md").write_text(card(facts), encoding="utf-8")
    return Written(files=sorted(out.glob("*.safetensors")))


def score(path: Path, texts: Sequence[str], *, end_id: int, window: int) -> Scored:
    """Scores texts with transformers' own model and tokenizer from the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kogata.engine.evaluate import cut, token_losses

    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    pieces = [piece for document in ids for piece in cut(document, end_id, window)]
    return Scored(loss=sum(map(sum, token_losses(model, pieces))), tokens=sum(map(len, ids)), ids=ids)


def card(facts: dict[str, Any]) -> str:
    """Writes the model card from what is known; what is not known is not in it."""
    model, corpus = facts.get("model") or facts, facts.get("corpus") or {}
    if model.get("role") in ("encoder", "classifier", "tagger"):
        return _card_of_reader(model)
    spec, training = model.get("spec") or {}, model.get("training") or {}
    language = corpus.get("language_hint")
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    head += [f"language: {language}"] if language in ("en", "ja") else []
    rows = {
        "architecture": model.get("architecture") or spec.get("family"),
        "parameters": _count(model.get("parameters")),
        "layers × width": f"{spec['layers']} × {spec['width']}" if spec else None,
        "vocabulary": _count(model.get("vocab_size")),
        "context": f"{_count(model['context'])} tokens" if model.get("context") else None,
        "trained on": f"{_count(training.get('tokens'))} tokens" if training.get("tokens") else None,
        "steps": _count(training.get("steps")),
    }
    train = (corpus.get("splits") or {}).get("train") or {}
    if train.get("documents"):
        rows["corpus"] = f"{_count(train['documents'])} documents, {_count(train.get('bytes'))} bytes"
    table = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    start = "昔々、" if language == "ja" else "It was late in the evening when"
    lines = [
        *head, "---", "", "# A language model made with Kogata", "",
        "| | |", "| --- | --- |", *table, "",
        "It continues text. It was not taught to follow instructions unless its recipe says so, and it"
        " repeats what its training text says, true or not.", "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer", "",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        'model = AutoModelForCausalLM.from_pretrained(".")',
        f'ids = tokenizer("{start}", return_tensors="pt").input_ids',
        "print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))", "```", "",
        "Licence: not stated; it depends on the training text.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _card_of_reader(model: dict[str, Any]) -> str:
    """Writes the card of a classifier, a tagger or an encoder."""
    title, task, module = _READERS[model["role"]]
    score = (model.get("methods") or {}).get(model.get("method")) or {}
    labels = model.get("labels") or []
    rows = {
        "architecture": model.get("architecture"),
        "parameters": _count(model.get("parameters")),
        "method": model.get("method"),
        "labels": f"{len(labels)}: {', '.join(map(str, labels[:20]))}" if labels else None,
        "accuracy on rows not trained on": _percent(score, "accuracy", "n"),
        "F1 of spans in rows not trained on": _percent(score, "f1", "spans"),
        "context": f"{_count(model['context'])} tokens" if model.get("context") else None,
    }
    python = ["from transformers import pipeline", "", f'print(pipeline("{task}", ".")("…"))']
    if module and not model.get("loads_in_transformers"):
        python = [f"from kogata.engine import {module}", "", f'loaded = {module}.load(".")']
        python += [f'print({module}.predict(loaded, ["…"]))']
    lines = [
        "---", f"pipeline_tag: {task}", "---", "",
        f"# {title} made with Kogata", "",
        "| | |", "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items() if value is not None), "",
        "```python", *python, "```", "", "Licence: not stated; it depends on the training text.", "",
    ]  # fmt: skip
    return "\n".join(lines)


_READERS = {
    "classifier": ("A classifier of texts", "text-classification", "classify"),
    "tagger": ("A tagger of texts", "token-classification", "tag"),
    "encoder": ("A text encoder", "fill-mask", None),
}
"""Role → what a model is called, its task on the hub, the module of ours that asks it."""


def _percent(score: dict[str, Any], measure: str, of: str) -> str | None:
    if measure not in score:
        return None
    return f"{100 * score[measure]:.1f} ± {100 * score['standard_error']:.1f} % of {score[of]:,}"


def _count(value: Any) -> str | None:
    return f"{int(value):,}" if isinstance(value, int | float) and value else None


FORMAT = Format(
    name="hf",
    place="hf",
    runtime="transformers",
    tolerance=0.001,
    refuse=refuse,
    forecast_bytes=forecast_bytes,
    write=write,
    score=score,
)
