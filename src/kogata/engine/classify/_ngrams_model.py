"""The n-gram classifier: trained, saved as safetensors and JSON, loaded and asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from kogata.core.stage import Bench
from kogata.engine.classify import ABOUT
from kogata.engine.classify._costs import ENOUGH_ROWS
from kogata.engine.classify._grams import Grams
from kogata.engine.classify._linear import Logistic, compact, fit, tune
from kogata.engine.classify._task import Task, Text, join

WEIGHTS = "model.safetensors"


class NgramsClassifier:
    """N-grams with weights, and a logistic regression over them."""

    def __init__(self, names: list[str], grams: Grams, head: Logistic, tuning: dict[str, Any]) -> None:
        self.names, self.grams, self.head, self.tuning = names, grams, head, tuning

    def probabilities(self, texts: Sequence[Text]) -> np.ndarray:
        """Gives each text's probability of each label, float64 [n, labels]."""
        logits = self.head.logits(self.grams.rows([join(text) for text in texts]))
        return logits.double().softmax(1).numpy()

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes `model.safetensors` and `classifier.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                "keys": self.grams.keys.view(np.int64),
                "weights": self.grams.weights,
                "head.weight": self.head.weight.numpy(),
                "head.bias": self.head.bias.numpy(),
            },
            folder / WEIGHTS,
        )
        about = {
            "method": "ngrams",
            "labels": self.names,
            "shortest": self.grams.shortest,
            "longest": self.grams.longest,
        }
        text = json.dumps(about, ensure_ascii=False, indent=1)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
        return {
            "spec": None,
            "architecture": "ngrams",
            "parameters": self.head.weight.numel() + self.head.bias.numel(),
            "vocab_size": len(self.grams.keys),
            "context": None,
            "tokenizer_digest": None,
            "end_id": None,
            "training": self.tuning,
        }

    @staticmethod
    def load(folder: Path) -> NgramsClassifier:
        """Loads what `save` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        held = load_file(folder / WEIGHTS)
        grams = Grams(about["shortest"], about["longest"], held["keys"].view(np.uint64), held["weights"])
        head = Logistic(torch.from_numpy(held["head.weight"]), torch.from_numpy(held["head.bias"]))
        return NgramsClassifier(about["labels"], grams, head, {})


def train(
    shortest: int, longest: int, strengths: Sequence[float], task: Task, bench: Bench
) -> NgramsClassifier:
    """Learns the n-grams, chooses the strength by held-out rows, fits all rows."""
    texts = [join(text) for text in task.texts]
    grams = Grams.learn(texts, shortest, longest)
    rows = grams.rows(texts)
    # Few rows of many features: the same regression is a hundred times smaller in the rows' own span.
    small = compact(rows) if len(rows) <= ENOUGH_ROWS else None
    given = rows if small is None else small[0]
    strength, shares = tune(
        given,
        task.targets,
        task.classes,
        strengths,
        task.seed,
        lambda done, total: bench.progress(done, total, unit="fits"),
        task.groups,
    )
    head = fit(given, torch.from_numpy(task.targets), task.classes, strength)
    if small is not None:
        head = Logistic(rows.products()[1](small[1] @ head.weight), head.bias)
    tuning = {"strength": strength, "right_by_strength": shares, "ngrams": len(grams.keys)}
    return NgramsClassifier(task.names, grams, head, tuning)
