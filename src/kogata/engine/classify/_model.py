"""A classifier with an encoder: one linear layer over pooled vectors, saved as plain transformers loads it.

transformers' heads read the first token ([CLS]) where ours reads the mean. Both fit: for BERT's relatives
one layer is added that attends evenly, so that the first token becomes the standardised mean, and the pooler
is set to pass it on; ModernBERT pools the mean itself. So `AutoModelForSequenceClassification` computes our
logits, which saving checks. Other architectures are saved as encoder and head side by side.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kogata.core.errors import ArtifactError
from kogata.core.stage import Bench
from kogata.engine.classify import ABOUT
from kogata.engine.classify._linear import fit, tune
from kogata.engine.classify._task import Task, Text
from kogata.engine.encoders import POST_NORM, Encoder, Padded, buckets, pad, quietly
from kogata.engine.hf_folder import copy_tokenizer, write_json
from kogata.engine.loop import Outcome

HEAD = "head.safetensors"
MEAN_SCALE = 1e5
"""How much the mean outweighs the first token's own state in the added layer: what is left of it, 1e-5."""
TANH_SCALE = 1e-4
"""The pooler's tanh is used where it is a straight line."""
GELU_SHIFT = 64.0
"""ModernBERT's gelu too; its norm takes the shift away again."""
TOLERANCE = 1e-3
"""Between our logits and those of the saved module, of the largest."""


class EncoderClassifier:
    """An encoder and a linear head: logits = weight · vector + bias.

    Args:
        method: which made it.
        names: the labels.
        encoder: gives the vectors.
        weight: [classes, width].
        bias: [classes].
        training: what the facts say of how it was made.
    """

    def __init__(
        self, method: str, names: list[str], encoder: Encoder, weight: Tensor, bias: Tensor, training: Any
    ) -> None:
        self.method, self.names, self.encoder = method, names, encoder
        self.weight, self.bias, self.training = weight, bias, training
        self.outcome: Outcome | None = None
        """Of the training of the encoder, where there was one."""

    def logits(self, texts: Sequence[Text]) -> Tensor:
        """Computes the scores [n, classes]."""
        return self.encoder.vectors(texts) @ self.weight.T + self.bias

    def probabilities(self, texts: Sequence[Text]) -> np.ndarray:
        """Gives each text's probability of each label, float64 [n, labels]."""
        return self.logits(texts).double().softmax(1).numpy()

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes a Hugging Face folder; transformers' own class loads it where it has a head like ours.

        Raises:
            ArtifactError: transformers' module does not compute our logits.
        """
        folder.mkdir(parents=True, exist_ok=True)
        encoder = self.encoder
        module = as_transformers(encoder, self.weight, self.bias, self.names)
        if module is None:
            save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, folder / HEAD)
        else:
            self._check(module)
        with quietly():
            (encoder.module if module is None else module).save_pretrained(folder)
        copy_tokenizer(encoder.folder, folder)
        about = {"method": self.method, "labels": self.names, "context": encoder.context}
        write_json(folder / ABOUT, about)
        from kogata.engine.tokens import tokenizer_digest

        has_tokenizer = (folder / "tokenizer.json").is_file()
        return {
            "spec": None,
            "architecture": encoder.config.model_type,
            "parameters": sum(p.numel() for p in (module or encoder.module).parameters()),
            "vocab_size": encoder.config.vocab_size,
            "context": encoder.context,
            "tokenizer_digest": tokenizer_digest(folder) if has_tokenizer else None,
            "end_id": None,
            "loads_in_transformers": module is not None,
            "training": self.training,
        }

    def _check(self, module: Any) -> None:
        known = list(self.encoder._rows)[:: max(1, len(self.encoder._rows) // 12)][:12]
        if not known:
            return
        ours = self.logits(known)
        theirs = torch.cat(
            [_logits(module, pad([row], self.encoder.pad_id)) for row in self.encoder.rows(known)]
        )
        gap = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-6))
        if gap > TOLERANCE:
            raise ArtifactError(
                "the saved model would not compute what was trained",
                where=self.encoder.config.model_type,
                found=f"logits that differ by {gap:.2g} of the largest",
                expected=f"at most {TOLERANCE:g}",
                remedy="please report this with the model's name",
            )

    @staticmethod
    def load(folder: Path) -> EncoderClassifier | SavedClassifier:
        """Loads what `save` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if (folder / HEAD).is_file():
            held = load_file(folder / HEAD)
            encoder = Encoder.load(folder, about["context"])
            return EncoderClassifier(
                about["method"], about["labels"], encoder, held["weight"], held["bias"], {}
            )
        return SavedClassifier(folder, about)


class SavedClassifier:
    """A classifier as transformers loads it."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        from transformers import AutoModelForSequenceClassification

        from kogata.engine.load import load_tokenizer

        self.names: list[str] = about["labels"]
        self.folder, self.about = folder, about
        more: Any = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
        with quietly():
            module = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, **more)
        self.module: Any = module.eval()
        # The head reads the tokens; pooling and everything else is the module's own.
        self._cutter = Encoder(self.module, load_tokenizer(folder), folder, about["context"])

    def probabilities(self, texts: Sequence[Text]) -> np.ndarray:
        """Gives each text's probability of each label, float64 [n, labels]."""
        rows = self._cutter.rows(texts)
        found = torch.zeros(len(texts), len(self.names))
        for chosen in buckets([len(row) for row in rows]) if rows else ():
            batch = pad([rows[i] for i in chosen], self._cutter.pad_id)
            found[torch.from_numpy(chosen)] = _logits(self.module, batch)
        return found.double().softmax(1).numpy()

    def save(self, folder: Path) -> dict[str, Any]:
        """Copies the folder's files."""
        from kogata.engine.hf_folder import copy_file, copy_model

        copy_model(self.folder, folder)
        copy_file(self.folder / ABOUT, folder / ABOUT)
        return {"architecture": self.module.config.model_type}


def fit_head(
    method: str,
    encoder: Encoder,
    task: Task,
    strengths: Sequence[float],
    bench: Bench,
    training: dict[str, Any] | None = None,
) -> EncoderClassifier:
    """Fits logistic regression over an encoder's vectors; the strength is chosen by held-out rows."""

    def embedding(done: int, total: int) -> None:
        bench.progress(done, total, unit="texts")

    scale = encoder.width**-0.5
    rows = encoder.vectors(task.texts, embedding) * scale
    strength, shares = tune(rows, task.targets, task.classes, strengths, task.seed, groups=task.groups)
    head = fit(rows, torch.from_numpy(task.targets), task.classes, strength)
    bench.count(tokens=sum(map(len, encoder.rows(task.texts))))
    about = {**(training or {}), "strength": strength, "right_by_strength": shares}
    weight = (head.weight.T * scale).contiguous()
    return EncoderClassifier(method, task.names, encoder, weight, head.bias, about)


def as_transformers(encoder: Encoder, weight: Tensor, bias: Tensor, names: list[str]) -> Any:
    """Builds transformers' own sequence classifier with our logits; None where no head of its has them."""
    kind = encoder.config.model_type
    config = copy.deepcopy(encoder.config)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "single_label_classification"
    if kind == "modernbert":
        config.classifier_pooling, config.classifier_bias, config.classifier_activation = "mean", True, "gelu"
        build: Callable[..., Any] = _modern
    elif kind in POST_NORM and config.hidden_act in ("gelu", "relu", "gelu_new", "silu"):
        config.num_hidden_layers += 1
        build = _post_norm
    else:
        return None
    from transformers import AutoModelForSequenceClassification

    with torch.no_grad():
        module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        build(module, encoder, weight, bias)
    return module


def _modern(module: Any, encoder: Encoder, weight: Tensor, bias: Tensor) -> None:
    module.model.load_state_dict(encoder.module.state_dict())
    _pass_on(module.head.dense, 1.0)
    module.head.dense.bias.fill_(GELU_SHIFT)
    nn.init.ones_(module.head.norm.weight)
    if module.head.norm.bias is not None:
        nn.init.zeros_(module.head.norm.bias)
    _set(module.classifier, weight, bias)


def _post_norm(module: Any, encoder: Encoder, weight: Tensor, bias: Tensor) -> None:
    base = module.base_model
    missing = base.load_state_dict(encoder.module.state_dict(), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    layer = base.encoder.layer[-1]
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    # Queries and keys of zero attend evenly: each token gets the mean, times a scale that drowns its own.
    _pass_on(layer.attention.self.value, 1.0)
    _pass_on(layer.attention.output.dense, MEAN_SCALE)
    head = module.classifier
    dense, last = (base.pooler.dense, head) if isinstance(head, nn.Linear) else (head.dense, head.out_proj)
    _pass_on(dense, TANH_SCALE)
    _set(last, weight / TANH_SCALE, bias)


def _pass_on(linear: nn.Linear, scale: float) -> None:
    nn.init.eye_(linear.weight).mul_(scale)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def _set(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _logits(module: Any, batch: Padded) -> Tensor:
    more: dict[str, Any] = {}
    if batch.types is not None and getattr(module.config, "type_vocab_size", 0) > 1:
        more["token_type_ids"] = batch.types
    if batch.mask is not None:
        more["attention_mask"] = batch.mask.long()
    with torch.no_grad():
        return module(input_ids=batch.ids, **more).logits
