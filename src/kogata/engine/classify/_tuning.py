"""Training an encoder on labelled texts: the parts that contrastive and full share, run by the one loop.

The lower layers may be frozen: what they give for each text is computed once, kept in half precision, and
every epoch starts above them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.core.recipe import Clock
from kogata.core.stage import Bench
from kogata.engine.encoder_stack import Laid, Stack
from kogata.engine.encoders import Encoder, Row, buckets, layers_of, pad
from kogata.engine.heap import kept as memory_kept
from kogata.engine.keep_best import KeepBest
from kogata.engine.loop import Objective, Outcome, Training, train
from kogata.engine.sampler import Batch, Sampler, StepBatch
from kogata.nn.optim import AdamW, Group, Optimiser

TOGETHER = 16
"""Texts padded to one length, where rows cannot be laid end to end: of a batch sorted by length."""
CLIP = 1.0
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch(Batch):
    """Some of the task's rows: `inputs` are their numbers [B], `targets` their labels [B]."""


class EpochSampler:
    """Gives `batch` rows a step, every row once an epoch, in a new order each epoch."""

    def __init__(self, trainee: Trainee, targets: np.ndarray, batch: int, seed: int) -> None:
        self.trainee, self.targets, self.batch, self.seed = trainee, targets, batch, seed
        self.taken = 0
        self._order: tuple[int, np.ndarray] = (-1, targets)

    @property
    def epochs(self) -> float:
        """How often the rows were seen so far."""
        return self.taken / len(self.targets)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next rows."""
        n = len(self.targets)
        rows = np.array([self._row(at, n) for at in range(self.taken, self.taken + min(self.batch, n))])
        self.taken += len(rows)
        return self.trainee.step_batch(rows, self.targets[rows])

    def _row(self, at: int, n: int) -> int:
        epoch, place = divmod(at, n)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(n))
        return int(self._order[1][place])

    def state(self) -> dict[str, Any]:
        """Gives the position."""
        return {"taken": self.taken}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.taken = int(state["taken"])


class LabelSampler:
    """Gives a step some labels, and as many rows of each: two at least, so that each has a peer."""

    def __init__(self, trainee: Trainee, targets: np.ndarray, batch: int, seed: int) -> None:
        self.trainee, self.targets, self.seed = trainee, targets, seed
        self.rows = [np.flatnonzero(targets == label) for label in np.unique(targets)]
        self.labels = min(len(self.rows), max(2, batch // 2))
        self.each = max(2, batch // self.labels)
        self.step = 0

    @property
    def epochs(self) -> float:
        """How often the rows were seen so far, on average."""
        return self.step * self.labels * self.each / len(self.targets)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next rows."""
        chance = np.random.default_rng([self.seed, self.step])
        self.step += 1
        picked = []
        for label in chance.permutation(len(self.rows))[: self.labels]:
            rows = self.rows[label]
            # A label with too few rows gives some of them twice: dropout makes two views of one text.
            again = -(-self.each // len(rows))
            picked.append(np.concatenate([chance.permutation(rows) for _ in range(again)])[: self.each])
        chosen = np.concatenate(picked)
        return self.trainee.step_batch(chosen, self.targets[chosen])

    def state(self) -> dict[str, Any]:
        """Gives the position."""
        return {"step": self.step}

    def load(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self.step = int(state["step"])


class Trainee:
    """An encoder whose upper layers are trained on rows.

    Args:
        encoder: a copy of its own; changed by training.
        rows: what is read.
        layers: how many upper layers are trained; None trains everything, embeddings too.
    """

    def __init__(self, encoder: Encoder, rows: Sequence[Row], layers: int | None) -> None:
        self.encoder, self.rows = encoder, rows
        self.kept: list[Tensor] | None = None
        stack = layers_of(encoder.module)
        if layers is None or stack is None:
            self.start, self.stack = 0, None
            self.trained: nn.Module = encoder.module
        else:
            self.stack = Stack(encoder)
            self.start = max(0, len(stack) - layers)
            parts = list(stack[self.start :])
            if self.stack.modern:
                parts.append(encoder.module.final_norm)
            self.trained = nn.ModuleList(parts)
            if self.start:
                self.kept = self._outputs_below()
        encoder.module.requires_grad_(False).eval()
        self.trained.requires_grad_(True)

    @torch.no_grad()
    def _outputs_below(self) -> list[Tensor]:
        """Computes once what enters the lowest trained layer, for each row [T, D]."""
        assert self.stack is not None
        found: list[Tensor] = [torch.zeros(0)] * len(self.rows)
        self.encoder.module.eval()
        for chosen in buckets([len(row) for row in self.rows]):
            laid = self.stack.lay([self.rows[i] for i in chosen])
            hidden = self.stack.through(self.stack.embed(laid), laid, 0, self.start).half()
            for row, part in zip(chosen, hidden.split(laid.lengths.tolist()), strict=True):
                found[row] = part.clone()
        return found

    def step_batch(self, rows: np.ndarray, targets: np.ndarray) -> StepBatch:
        """Makes a step's batch of rows by number."""
        batch = TextBatch(inputs=torch.from_numpy(rows), targets=torch.from_numpy(targets))
        tokens = sum(len(self.rows[row]) for row in rows)
        return StepBatch(parts=[batch], count=float(len(rows)), tokens=tokens)

    def vectors(self, numbers: Tensor) -> Tensor:
        """Computes the pooled vectors [B, D] of rows."""
        order = sorted(range(len(numbers)), key=lambda at: len(self.rows[int(numbers[at])]))
        rows = [int(numbers[at]) for at in order]
        places = torch.empty(len(order), dtype=torch.long)
        places[torch.tensor(order)] = torch.arange(len(order))
        if self.stack is not None:
            return self._laid(self.stack, rows)[places]
        # Layers not known here, or embeddings that are trained: padded, rows of like length together.
        groups = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
        batches = [pad([self.rows[row] for row in group], self.encoder.pad_id) for group in groups]
        return torch.cat([self.encoder.pooled(batch) for batch in batches])[places]

    def hidden(self, rows: Sequence[int]) -> Tensor:
        """Computes the last hidden vectors [N, D] of rows laid end to end, which come shortest first."""
        if self.stack is not None:
            return self._through(self.stack, self.stack.lay([self.rows[row] for row in rows]), rows)
        found = []
        for start in range(0, len(rows), TOGETHER):
            batch = pad([self.rows[row] for row in rows[start : start + TOGETHER]], self.encoder.pad_id)
            hidden = self.encoder.hidden(batch)
            found.append(hidden.flatten(0, 1) if batch.mask is None else hidden[batch.mask])
        return torch.cat(found)

    def _laid(self, stack: Stack, rows: Sequence[int]) -> Tensor:
        laid = stack.lay([self.rows[row] for row in rows])
        return stack.pool(self._through(stack, laid, rows), laid)

    def _through(self, stack: Stack, laid: Laid, rows: Sequence[int]) -> Tensor:
        if self.kept is None:
            with torch.no_grad():
                hidden = stack.embed(laid)
        else:
            hidden = torch.cat([self.kept[row] for row in rows]).float()
        return stack.through(hidden, laid, self.start, len(stack.layers))


class Classifying:
    """Cross-entropy of the head over the vectors."""

    def __init__(self, trainee: Trainee, head: nn.Linear) -> None:
        self.trainee, self.head = trainee, head

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        logits = self.head(self.trainee.vectors(batch.inputs))
        return F.cross_entropy(logits, batch.targets, reduction="sum") * scale


class Contrasting:
    """Supervised contrastive loss: each text is told from the batch's texts of other labels."""

    def __init__(self, trainee: Trainee, temperature: float) -> None:
        self.trainee, self.temperature = trainee, temperature

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        vectors = self.trainee.vectors(batch.inputs) * self.trainee.encoder.width**-0.5
        likeness = vectors @ vectors.T / self.temperature
        self_too = torch.eye(len(vectors), dtype=torch.bool)
        shares = likeness.masked_fill(self_too, -torch.inf).log_softmax(1).masked_fill(self_too, 0.0)
        peers = ((batch.targets[:, None] == batch.targets[None]) & ~self_too).to(shares.dtype)
        return -((shares * peers).sum(1) / peers.sum(1).clamp(min=1)).sum() * scale


@dataclass(kw_only=True)
class PacedSchedule:
    """Warm-up, then a straight fall to zero over the steps, or over the time where that ends first."""

    steps: int
    warmup: int
    clock: Clock
    seconds: float | None = None
    """That training may take; None: the steps alone count."""
    spent: float = 0.0
    """Of them, before this process."""
    _began: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._began = self.clock.now()

    def next(self, step: int) -> tuple[float, float] | None:
        """Gives (factor, share done) of a step; None when steps or time are over."""
        done = step / self.steps
        if self.seconds is not None:
            done = max(done, self._gone() / self.seconds)
        if step >= self.steps or (done >= 1 and step > 0):
            return None
        # Where the time ends first, its first tenth is warm-up enough.
        warm = max((step + 1) / (self.warmup + 1), 10 * done if self.seconds is not None else 0.0)
        return min(max(1 - done, 0.5 / self.steps), warm), min(1.0, done)

    def _gone(self) -> float:
        return self.spent + self.clock.now() - self._began

    def done(self, step: int) -> None:
        """Needs no note."""

    def state(self) -> dict[str, Any]:
        """Gives the time spent."""
        return {"spent": self._gone()}

    def load(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        self.spent = float(state["spent"])

    def record(self, steps: int) -> dict[str, Any]:
        """States what replays this schedule without a clock."""
        return {"steps": steps, "warmup": self.warmup}


def run(
    trainee: Trainee,
    head: nn.Module | None,
    objective: Objective,
    sampler: Sampler,
    *,
    lr: float,
    steps: int,
    warmup: int,
    seconds: float | None,
    seed: int,
    bench: Bench,
    keep: Callable[[Sequence[tuple[str, Tensor]]], KeepBest] | None = None,
) -> Outcome:
    """Trains with AdamW; dropout is as the encoder's config says, its draws from the seed.

    `keep` makes what keeps the weights that were best, given all that is trained.
    """
    torch.manual_seed(seed)
    named: list[tuple[str, Tensor]] = list(trainee.trained.named_parameters())
    matrices = [(f"encoder.{name}", p) for name, p in named if p.ndim > 1]
    vectors = [(f"encoder.{name}", p) for name, p in named if p.ndim < 2]
    groups = [Group(named=matrices, lr=lr, weight_decay=WEIGHT_DECAY), Group(named=vectors, lr=lr)]
    model = nn.ModuleDict({"encoder": trainee.trained})
    if head is not None:
        model["head"] = head
        groups.append(Group(named=[(f"head.{name}", p) for name, p in head.named_parameters()], lr=lr))
    optimiser = Optimiser(parts={"adamw": AdamW(groups=groups, betas=BETAS, eps=1e-8)})
    named = [pair for group in groups for pair in group.named]
    schedule = PacedSchedule(steps=steps, warmup=min(warmup, steps), clock=bench.clock, seconds=seconds)
    trainee.trained.train()
    try:
        with memory_kept():
            return train(
                Training(
                    model=model,
                    objective=objective,
                    sampler=sampler,
                    optimiser=optimiser,
                    schedule=schedule,
                    techniques=() if keep is None else (keep(named),),
                    clip=CLIP,
                    flops_per_token=6.0 * sum(p.numel() for _, p in matrices),
                ),
                bench,
            )
    finally:
        trainee.trained.eval()
        trainee.encoder.module.requires_grad_(False)
