"""Training an encoder to tag: whole texts a step, laid end to end; a tenth of the rows watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.core.stage import Bench
from kogata.engine.classify._tuning import EpochSampler, TextBatch, Trainee, run
from kogata.engine.keep_best import KeepBest
from kogata.engine.sampler import Batch, StepBatch
from kogata.engine.tag import probe
from kogata.engine.tag._costs import PART_TOKENS, watched
from kogata.engine.tag._encoder import TokenEncoder
from kogata.engine.tag._encoder_model import EncoderTagger, fit_head
from kogata.engine.tag._pieces import Window, targets_of
from kogata.engine.tag._task import Task

if TYPE_CHECKING:
    from kogata.engine.tag.full import Settings


@dataclass(frozen=True)
class Texts:
    """Rows as windows: which ones each row has, and the targets of the pieces that count in each."""

    windows: Sequence[Window]
    targets: Sequence[np.ndarray]
    of_row: Sequence[Sequence[int]]

    @staticmethod
    def of(encoder: TokenEncoder, task: Task) -> Texts:
        """Cuts the rows of a task."""
        pieces, parts = encoder.windows(task.rows)
        truth = [targets_of(some, row, task.scheme) for some, row in zip(pieces, task.rows, strict=True)]
        of_row: list[list[int]] = [[] for _ in task.rows]
        for number, (at, _) in enumerate(parts):
            of_row[at].append(number)
        windows = [window for _, window in parts]
        targets = [truth[at][window.first : window.first + window.count] for at, window in parts]
        return Texts(windows, targets, of_row)

    def counted(self, window: int) -> int:
        """Counts a window's pieces that are learned."""
        return int((self.targets[window] >= 0).sum())


class TagTrainee(Trainee):
    """An encoder and its head, trained on rows: a step's windows are laid end to end."""

    def __init__(self, encoder: TokenEncoder, texts: Texts, layers: int | None) -> None:
        super().__init__(encoder.encoder, [window.ids for window in texts.windows], layers)
        self.texts, self.head = texts, encoder.head
        self.head.requires_grad_(True)

    def step_batch(self, rows: np.ndarray, targets: np.ndarray) -> StepBatch:
        """Makes a step's batch of rows by number, in parts of so many tokens at most."""
        chosen = [window for row in rows for window in self.texts.of_row[row]]
        parts: list[list[int]] = [[]]
        held = 0
        for window in chosen:
            size = len(self.rows[window])
            if parts[-1] and held + size > PART_TOKENS:
                parts.append([])
                held = 0
            parts[-1].append(window)
            held += size
        made = [
            TextBatch(inputs=torch.tensor(part, dtype=torch.long), targets=torch.zeros(len(part)))
            for part in parts
            if any(map(self.texts.counted, part))
        ]
        count = sum(map(self.texts.counted, chosen))
        return StepBatch(
            parts=made, count=float(count), tokens=sum(len(self.rows[window]) for window in chosen)
        )

    def loss(self, windows: Sequence[int]) -> Tensor:
        """Adds up the cross-entropy of the pieces that count, in nats."""
        order = sorted(windows, key=lambda window: len(self.rows[window]))
        hidden = self.hidden(order)
        places, start = [], 0
        for window in order:
            at = self.texts.windows[window]
            places.append(torch.arange(start + at.skip, start + at.skip + at.count))
            start += len(self.rows[window])
        targets = torch.from_numpy(np.concatenate([self.texts.targets[window] for window in order]))
        return F.cross_entropy(self.head(hidden[torch.cat(places)]), targets, reduction="sum")


class Tagging:
    """Cross-entropy of the head over the pieces that count."""

    def __init__(self, trainee: TagTrainee) -> None:
        self.trainee = trainee

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        return self.trainee.loss(batch.inputs.tolist()) * scale


class Watch:
    """Computes the loss of rows that are not learned from, in nats a piece, without dropout."""

    def __init__(self, trainee: TagTrainee, rows: Sequence[int]) -> None:
        self.trainee = trainee
        self.windows = [window for row in rows for window in trainee.texts.of_row[row]]
        self.count = sum(map(trainee.texts.counted, self.windows))

    @torch.no_grad()
    def __call__(self) -> float:
        parts: tuple[nn.Module, ...] = (self.trainee.trained, self.trainee.head)
        learning = [part.training for part in parts]
        for part in parts:
            part.eval()
        total, start = 0.0, 0
        order = sorted(self.windows, key=lambda window: len(self.trainee.rows[window]))
        while start < len(order):
            longest, stop = len(self.trainee.rows[order[start]]), start + 1
            while stop < len(order) and (stop - start + 1) * longest <= PART_TOKENS:
                stop += 1
                longest = len(self.trainee.rows[order[stop - 1]])
            total += float(self.trainee.loss(order[start:stop]))
            start = stop
        for part, was in zip(parts, learning, strict=True):
            part.train(was)
        return total / self.count


class PartSampler(EpochSampler):
    """Gives the rows that are learned from: some of the trainee's."""

    def __init__(self, trainee: TagTrainee, rows: np.ndarray, batch: int, seed: int) -> None:
        super().__init__(trainee, rows, batch, seed)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next rows."""
        n = len(self.targets)
        places = [self._row(at, n) for at in range(self.taken, self.taken + min(self.batch, n))]
        self.taken += len(places)
        return self.trainee.step_batch(self.targets[places], self.targets[places])


def train(settings: Settings, task: Task, bench: Bench) -> EncoderTagger:
    """Fits the probe to all rows, then trains encoder and head."""
    from kogata.engine.tag.full import steps_of

    began, limit = bench.clock.now(), bench.share.seconds
    encoder = fit_head("full", task.workshop.encoder.copy(), task, probe.STRENGTHS, bench).encoder
    texts = Texts.of(encoder, task)
    count = encoder.encoder.config.num_hidden_layers
    layers = {"all": None, "auto": count}.get(str(settings.layers), settings.layers)
    assert layers is None or isinstance(layers, int)
    trainee = TagTrainee(encoder, texts, layers)
    learned, apart = set_apart(task, texts)
    steps = steps_of(settings, len(learned))
    warmup = min(100, steps // 10) if settings.warmup == "auto" else settings.warmup
    best: list[KeepBest] = []

    def keep(named: Sequence[tuple[str, Tensor]]) -> KeepBest:
        best.append(KeepBest(Watch(trainee, apart), named, patience=0))
        return best[0]

    trainee.head.train()
    outcome = run(
        trainee,
        trainee.head,
        Tagging(trainee),
        PartSampler(trainee, np.array(learned), settings.batch, task.seed),
        lr=settings.lr,
        steps=steps,
        warmup=warmup,
        seconds=None if limit is None else max(1.0, limit - (bench.clock.now() - began)),
        seed=task.seed,
        bench=bench,
        keep=keep if apart else None,
    )
    encoder.module.eval()
    training: dict[str, Any] = {
        "steps": outcome.steps,
        "warmup": warmup,
        "epochs": round(outcome.epochs, 4),
        "tokens": outcome.tokens,
        "loss": None if outcome.loss is None else round(outcome.loss, 6),
        "lr": settings.lr,
        "batch": settings.batch,
        "layers": "all" if trainee.stack is None else len(trainee.stack.layers) - trainee.start,
        "windows": len(texts.windows),
        "watched_rows": len(apart),
        "best_step": best[0].at if best else outcome.steps,
        "watched_loss": round(best[0].best, 6) if best else None,
    }
    made = EncoderTagger("full", encoder, training)
    made.outcome = outcome
    return made


def set_apart(task: Task, texts: Texts) -> tuple[list[int], list[int]]:
    """Parts the rows into those learned from and, where there are enough, a tenth that watches, by group."""
    usable = [at for at in range(len(task)) if any(map(texts.counted, texts.of_row[at]))]
    wanted = watched(len(task))
    if not wanted:
        return usable, []
    chance = np.random.default_rng([task.seed, len(task)])
    sizes = np.bincount(task.groups)
    apart: set[int] = set()
    rows = 0
    for group in chance.permutation(len(sizes)).tolist():
        # A large group is left to learning: what watches should be of many.
        if rows < wanted and 0 < sizes[group] <= wanted - rows:
            apart.add(group)
            rows += int(sizes[group])
    watching = [at for at in usable if int(task.groups[at]) in apart]
    return [at for at in usable if int(task.groups[at]) not in apart], watching
