"""The tagger with an encoder: saved as plain transformers loads it, asked by words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kogata.core.stage import Bench
from kogata.engine.classify._linear import fit, tune
from kogata.engine.encoders import quietly
from kogata.engine.hf_folder import copy_tokenizer, write_json
from kogata.engine.loop import Outcome
from kogata.engine.tag import ABOUT
from kogata.engine.tag._costs import MOST_PIECES
from kogata.engine.tag._encoder import TokenEncoder
from kogata.engine.tag._paths import NEVER, best_paths
from kogata.engine.tag._pieces import targets_of, units_of
from kogata.engine.tag._task import Marked, Place, Row, Scheme, Task

TOGETHER = 1024
"""Rows whose scores are held at a time when a tagger is asked."""


class EncoderTagger:
    """An encoder and its head.

    Args:
        method: which made it.
        encoder: the module and what cuts texts for it.
        training: what the facts say of how it was made.
    """

    def __init__(self, method: str, encoder: TokenEncoder, training: dict[str, Any]) -> None:
        self.method, self.encoder, self.training = method, encoder, training
        self.outcome: Outcome | None = None
        """Of the training of the encoder, where there was one."""

    @property
    def scheme(self) -> Scheme:
        """The classes."""
        return self.encoder.scheme

    def mark(self, rows: Sequence[Row]) -> list[list[Marked]]:
        """Finds each row's spans with their probabilities, in order."""
        found: list[list[Marked]] = []
        for start in range(0, len(rows), TOGETHER):
            found += self._mark(rows[start : start + TOGETHER])
        return found

    def _mark(self, rows: Sequence[Row]) -> list[list[Marked]]:
        pieces, logits = self.encoder.logits(rows)
        places: list[list[Place]] = []
        logs: list[np.ndarray] = []
        for row, some, scored in zip(rows, pieces, logits, strict=True):
            units, first = units_of(some, row)
            every = scored.double().log_softmax(1).numpy()
            # A token that the tokenizer leaves nothing of belongs to nothing.
            mine = np.full((len(units), every.shape[1]), NEVER)
            mine[:, 0] = 0.0
            mine[first >= 0] = every[first[first >= 0]]
            places.append(units)
            logs.append(mine)
        return [
            self.scheme.marked(units, path.tolist(), shares)
            for units, (path, shares) in zip(places, best_paths(logs, self.scheme), strict=True)
        ]

    def places(self, rows: Sequence[Row]) -> list[Sequence[Place]]:
        """Gives what is tagged as a whole in each row."""
        pieces = self.encoder.cutter.pieces([row.text for row in rows])
        return [units_of(some, row)[0] for some, row in zip(pieces, rows, strict=True)]

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes a folder that `AutoModelForTokenClassification` loads, and `tagger.json`."""
        from kogata.engine.tokens import tokenizer_digest

        folder.mkdir(parents=True, exist_ok=True)
        module = self.encoder.module
        with quietly():
            module.save_pretrained(folder)
        copy_tokenizer(self.encoder.folder, folder)
        about = {
            "method": self.method,
            "labels": list(self.scheme.labels),
            "plain": self.scheme.plain,
            "context": self.encoder.context,
        }
        write_json(folder / ABOUT, about)
        return {
            "spec": None,
            "architecture": module.config.model_type,
            "parameters": sum(p.numel() for p in module.parameters()),
            "vocab_size": module.config.vocab_size,
            "context": self.encoder.context,
            "tokenizer_digest": tokenizer_digest(folder) if (folder / "tokenizer.json").is_file() else None,
            "end_id": None,
            "loads_in_transformers": True,
            "training": self.training,
        }

    @staticmethod
    def load(folder: Path) -> EncoderTagger:
        """Loads what `save` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        scheme = Scheme(labels=tuple(about["labels"]), plain=about["plain"])
        return EncoderTagger(about["method"], TokenEncoder.saved(folder, scheme, about["context"]), {})


def fit_head(
    method: str, encoder: TokenEncoder, task: Task, strengths: Sequence[float], bench: Bench
) -> EncoderTagger:
    """Fits the classifier of an encoder by logistic regression; held-out rows choose its strength.

    Args:
        method: which asks.
        encoder: a copy of its own: its classifier is changed.
        task: the rows.
        strengths: to choose from.
        bench: the stage's.
    """

    def reading(done: int, total: int) -> None:
        bench.progress(done, total, unit="texts")

    pieces, parts = encoder.windows(task.rows)
    truth = [targets_of(some, row, task.scheme) for some, row in zip(pieces, task.rows, strict=True)]
    every = sum(int((targets >= 0).sum()) for targets in truth)
    step = max(1, -(-every // MOST_PIECES))
    vectors, targets, groups = {}, {}, {}
    for number, hidden in encoder.hidden([window for _, window in parts], reading):
        at, window = parts[number]
        mine = truth[at][window.first : window.first + window.count]
        # Which pieces are taken depends on the row alone, not on what it is read with.
        taken = (mine >= 0) & ((np.arange(window.first, window.first + window.count) + at) % step == 0)
        vectors[number] = hidden[torch.from_numpy(taken)].clone()
        targets[number], groups[number] = mine[taken], np.full(int(taken.sum()), task.groups[at])
    order = sorted(vectors)
    scale = encoder.encoder.width**-0.5
    rows = torch.cat([vectors[number] for number in order]) * scale
    wanted = np.concatenate([targets[number] for number in order])
    classes = len(task.scheme.classes)
    strength, shares = tune(
        rows,
        wanted,
        classes,
        strengths,
        task.seed,
        groups=np.concatenate([groups[number] for number in order]),
    )
    head = fit(rows, torch.from_numpy(wanted), classes, strength)
    with torch.no_grad():
        encoder.classifier.weight.copy_(head.weight.T * scale)
        encoder.classifier.bias.copy_(head.bias)
    bench.count(tokens=sum(len(window.ids) for _, window in parts))
    training = {"strength": strength, "right_by_strength": shares, "pieces": len(wanted)}
    return EncoderTagger(method, encoder, training)
