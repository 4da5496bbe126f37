"""The tagger of hashed features: trained, saved as safetensors and JSON, loaded and asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from kogata.core.stage import Bench
from kogata.engine.classify._linear import Logistic, fit, tune
from kogata.engine.hf_folder import write_json
from kogata.engine.tag import ABOUT
from kogata.engine.tag._features import Features, hashed_units
from kogata.engine.tag._paths import best_paths
from kogata.engine.tag._task import Marked, Place, Row, Scheme, Task

WEIGHTS = "model.safetensors"
TOGETHER = 512
"""Rows whose features are held at a time when a tagger is asked."""


class FeaturesTagger:
    """Features of units, and a logistic regression over them."""

    def __init__(self, scheme: Scheme, features: Features, head: Logistic, training: dict[str, Any]) -> None:
        self.scheme, self.features, self.head, self.training = scheme, features, head, training

    def mark(self, rows: Sequence[Row]) -> list[list[Marked]]:
        """Finds each row's spans with their probabilities, in order."""
        found: list[list[Marked]] = []
        for start in range(0, len(rows), TOGETHER):
            found += self._mark(rows[start : start + TOGETHER])
        return found

    def _mark(self, rows: Sequence[Row]) -> list[list[Marked]]:
        hashed = [unit for row in rows for unit in hashed_units(row)]
        logs = self.head.logits(self.features.rows(hashed)).double().log_softmax(1).numpy()
        sizes = [len(row.units) for row in rows]
        parts = np.split(logs, np.cumsum(sizes)[:-1])
        paths = best_paths(parts, self.scheme)
        return [
            self.scheme.marked(row.units, path.tolist(), shares)
            for row, (path, shares) in zip(rows, paths, strict=True)
        ]

    def places(self, rows: Sequence[Row]) -> list[Sequence[Place]]:
        """Gives what is tagged as a whole in each row."""
        return [row.units for row in rows]

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes `model.safetensors` and `tagger.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                "keys": self.features.keys.view(np.int64),
                "head.weight": self.head.weight.numpy(),
                "head.bias": self.head.bias.numpy(),
            },
            folder / WEIGHTS,
        )
        about = {"method": "features", "labels": list(self.scheme.labels), "plain": self.scheme.plain}
        write_json(folder / ABOUT, about)
        return {
            "spec": None,
            "architecture": "features",
            "parameters": self.head.weight.numel() + self.head.bias.numel(),
            "vocab_size": len(self.features.keys),
            "context": None,
            "tokenizer_digest": None,
            "end_id": None,
            "training": self.training,
        }

    @staticmethod
    def load(folder: Path) -> FeaturesTagger:
        """Loads what `save` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        held = load_file(folder / WEIGHTS)
        head = Logistic(torch.from_numpy(held["head.weight"]), torch.from_numpy(held["head.bias"]))
        scheme = Scheme(labels=tuple(about["labels"]), plain=about["plain"])
        return FeaturesTagger(scheme, Features(held["keys"].view(np.uint64)), head, {})


def train(strengths: Sequence[float], task: Task, bench: Bench) -> FeaturesTagger:
    """Learns the features, chooses the strength by held-out rows, fits all."""
    hashed, targets, groups = [], [], []
    for row, group in zip(task.rows, task.groups, strict=True):
        classes = task.scheme.targets(row.units, row.spans)
        units = hashed_units(row)
        for unit, target in zip(units, classes.tolist(), strict=True):
            if target >= 0:
                hashed.append(unit)
                targets.append(target)
                groups.append(group)
    features = Features.learn(hashed)
    rows, truth = features.rows(hashed), np.array(targets, dtype=np.int64)
    classes = len(task.scheme.classes)
    strength, shares = tune(
        rows,
        truth,
        classes,
        strengths,
        task.seed,
        lambda done, total: bench.progress(done, total, unit="fits"),
        np.array(groups, dtype=np.int64),
    )
    head = fit(rows, torch.from_numpy(truth), classes, strength)
    training = {"strength": strength, "right_by_strength": shares, "features": len(features.keys)}
    return FeaturesTagger(task.scheme, features, head, training)
