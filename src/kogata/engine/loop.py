"""The training loop. There is no other.

It takes plain objects: an objective (a batch's loss), a sampler (the batches), an optimiser, a schedule
(how fast, and when it is over) and techniques that act at named points. It adds gradients over parts and
processes, checks them, writes metrics, saves checkpoints, and stops when asked.
"""

from __future__ import annotations

import gc
import json
import math
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor, nn

from kogata.core.errors import DataError, RecipeError, Stopped
from kogata.core.stage import Bench
from kogata.engine.checkpoint import (
    Checkpoint,
    own_state,
    random_state,
    save_checkpoint,
    set_random_state,
)
from kogata.engine.parallel import Group
from kogata.engine.sampler import Batch, Learner, Sampler
from kogata.engine.schedule import Schedule
from kogata.engine.technique import Moment, Technique
from kogata.nn.optim import Optimiser, local

HELDOUT_LOOKS = 8
"""How often a run looks at its held-out sample."""
TIMED = ("seconds", "tokens_per_second", "gemm_share")
"""Columns of a metrics row that differ between two runs of the same key."""


class Objective(Protocol):
    """Computes the loss of a batch: scale · Σ weight · nats, ready for `backward`."""

    def __call__(self, batch: Batch, scale: float) -> Tensor: ...


@dataclass(kw_only=True)
class Training:
    """Everything a training run is made of."""

    model: nn.Module
    objective: Objective
    sampler: Sampler
    optimiser: Optimiser
    schedule: Schedule
    techniques: Sequence[Technique] = ()
    group: Group = field(default_factory=Group)
    clip: float | None = None
    """Gradients longer than this are shortened to it."""
    heldout: Callable[[], float] | None = None
    """Bits per byte of a small held-out sample; has no effect on the run."""
    precision: str = "fp32"
    """Of the products, whose rate the machine's is set beside."""
    flops_per_token: float = 0.0
    resting_flops: float = 0.0
    """Of these, what a step saves that does not move everything (`Group.every`)."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints; None: as seldom as `checkpoint_seconds` says."""
    checkpoint_seconds: float = 30.0
    facts: dict[str, Any] = field(default_factory=dict)
    """Outcomes of measurements, kept in the checkpoint: a resumed run takes them from there."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training run came to."""

    steps: int
    tokens: int
    epochs: float
    loss: float | None
    """Nats per token, the mean of the last tenth of the steps; None when no step was taken."""
    seconds: float
    metrics: Path
    """Every step's row, as JSON lines."""
    resumed: int | None
    """The step it was resumed at."""

    def write_metrics(self, folder: Path, *, clocked: bool) -> None:
        """Writes the rows as `metrics.jsonl` of an artifact.

        Without a clock the artifact is the same however fast it was made, killed or not: times are left out.
        """
        with (
            self.metrics.open(encoding="utf-8") as rows,
            (folder / "metrics.jsonl").open("w", encoding="utf-8") as out,
        ):
            for line in rows:
                row = json.loads(line)
                kept = row if clocked else {key: value for key, value in row.items() if key not in TIMED}
                out.write(json.dumps(kept, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())


def train(run: Training, bench: Bench) -> Outcome:
    """Runs to the end of the schedule, from the newest checkpoint if there is one.

    Raises:
        Stopped: someone asked to stop; a checkpoint was written.
        DataError: no token of a batch counts.
        RecipeError: the loss or a gradient is not finite.
    """
    return _Loop(run, bench).go()


class _Loop:
    def __init__(self, run: Training, bench: Bench) -> None:
        self.run, self.bench = run, bench
        self.parameters = self.moved = run.optimiser.parameters()
        """What is trained, and what of it the step at hand moves."""
        self.step, self.tokens, self.spent = 0, 0, 0.0
        self.losses = array("d")
        self.before = 0.0
        self.resumed: int | None = None
        self.metrics: IO[str] | None = None

    def go(self) -> Outcome:
        run = self.run
        checkpoint = run.group.newest(self.bench.checkpoints)
        if checkpoint is not None:
            self._resume(checkpoint)
        self.started = self.saved = self.bench.clock.now()
        self.looked = -1.0
        for technique in run.techniques:
            technique.begin(self._moment(1.0, 0.0))
        self._open_metrics()
        try:
            while self._one():
                if self.step == (self.resumed or 0) + 1:
                    gc.collect()
                    gc.freeze()  # What lives now lives to the end: the collector need not walk it again.
        finally:
            gc.unfreeze()
            run.optimiser.end()
            if self.metrics:
                self.metrics.close()
        for technique in run.techniques:
            technique.end(self._moment(0.0, 1.0))
        recent = self.losses[-max(1, len(self.losses) // 10) :]
        return Outcome(
            steps=self.step,
            tokens=self.tokens,
            epochs=run.sampler.epochs,
            loss=sum(recent) / len(recent) if recent else None,
            seconds=self._seconds(),
            metrics=self.bench.checkpoints / "metrics.jsonl",
            resumed=self.resumed,
        )

    def _one(self) -> bool:
        """Takes one step; False when there is none to take."""
        run, group = self.run, self.run.group
        ahead = run.schedule.next(self.step) if group.rank == 0 else None
        factor, progress = ahead or (0.0, 0.0)
        stop, going = self.bench.stopping(), ahead is not None
        if group.world > 1:
            told = group.share_numbers([going, factor, progress, stop, self._due()])
            going, factor, progress, stop = bool(told[0]), told[1], told[2], bool(told[3])
            due = bool(told[4])
        else:
            due = self._due()
        if stop and going:
            self._save()
            raise Stopped(
                f"stopped at step {self.step}", remedy="the same command goes on from here; nothing is lost"
            )
        if not going:
            return False
        for technique in run.techniques:
            factor *= technique.lr_times(progress)
        if due:
            self._save()
        moment = self._moment(factor, progress)
        self.moved = run.optimiser.begin()
        for technique in run.techniques:
            technique.before_forward(moment)
        loss, tokens = self._gradients(progress)
        for technique in run.techniques:
            technique.gradients(moment)
        norm = self._norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RecipeError(
                f"training diverged: step {self.step + 1} has loss {loss}, gradient length {norm}",
                where=f"stage {self.bench.label}",
                found=f"lr {run.optimiser.lr * factor:.3g}",
                remedy="lower `lr` (halve it), or lengthen `warmup`",
            )
        run.optimiser.step(factor, progress)
        for technique in run.techniques:
            technique.after_step(moment)
        run.optimiser.clear()
        run.schedule.done(self.step)
        self.step += 1
        self.tokens += tokens
        self._report(loss, norm, factor, progress, tokens)
        return True

    def _gradients(self, progress: float) -> tuple[float, int]:
        run, group = self.run, self.run.group
        batch = run.sampler.take(group.rank, group.world, progress)
        if batch.count <= 0:
            raise DataError(
                "no token of the batch would be trained",
                where=f"stage {self.bench.label}, step {self.step + 1}",
                found="every target is masked",
                expected="at least one token that counts",
                remedy="check the columns, the mask and the context: answers may be cut off",
            )
        total, seen, at = 0.0, [0.0] * batch.rows, batch.first
        for part in batch.parts:
            loss = run.objective(part, 1.0 / batch.count)
            loss.backward()
            total += float(loss.detach())
            if part.losses is not None:
                seen[at : at + len(part.losses)] = part.losses.mean(1, dtype=torch.float64).tolist()
                at += len(part.losses)
        # Every process fills in its own rows: the sum is all of them, the same everywhere.
        total, *seen = group.sum_gradients(self.moved, [total, *seen])
        if seen and isinstance(run.sampler, Learner):
            run.sampler.learn(seen)
            total = sum(seen) / len(seen)  # What rows weigh is no matter of the text: the plain loss is told.
        return total, batch.tokens

    def _norm(self) -> float:
        norm = self.run.group.norm(self.moved)
        if self.run.clip is not None and norm > self.run.clip:
            grads = [local(p.grad) for p in self.moved if p.grad is not None]
            torch._foreach_mul_(grads, self.run.clip / norm)
        return norm

    def _moment(self, factor: float, progress: float) -> Moment:
        run = self.run
        return Moment(
            step=self.step,
            progress=progress,
            factor=factor,
            model=run.model,
            optimiser=run.optimiser,
            sampler=run.sampler,
            objective=run.objective,
        )

    def _seconds(self) -> float:
        return self.spent + self.bench.clock.now() - self.started

    def _report(self, loss: float, norm: float, factor: float, progress: float, tokens: int) -> None:
        bench, run = self.bench, self.run
        seconds = self._seconds()
        pace, self.before = seconds - self.before, seconds
        rate = tokens / pace if pace > 0 else None
        whole = len(self.moved) == len(self.parameters)
        flops = run.flops_per_token - (0.0 if whole else run.resting_flops)
        for technique in run.techniques:
            flops *= technique.work()
        row: dict[str, Any] = {
            "stage": bench.label,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(seconds, 3),
            "loss": round(loss, 6),
            "lr": run.optimiser.lr * factor,
            "grad_norm": round(norm, 6),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "gemm_share": None,
        }
        if rate and flops and (most := bench.machine.product_flops(run.precision)):
            row["gemm_share"] = round(rate * flops / most, 4)
        if run.heldout is not None and math.floor(progress * HELDOUT_LOOKS) != self.looked and self.step > 1:
            self.looked = math.floor(progress * HELDOUT_LOOKS)
            row["heldout_bits_per_byte"] = round(run.heldout(), 5)
        for technique in run.techniques:
            row |= technique.row()
        if isinstance(run.sampler, Learner):
            row |= run.sampler.row()
        self.losses.append(loss)
        bench.count(tokens=tokens, flops=tokens * flops)
        if run.group.rank:
            return
        if self.metrics:
            self.metrics.write(json.dumps(row, ensure_ascii=False) + "\n")
        bench.metric(row)
        bench.progress(
            progress,
            1.0,
            **{key: row[key] for key in ("step", "loss", "lr", "tokens_per_second", "gemm_share")},
        )

    def _due(self) -> bool:
        run = self.run
        if self.step == (self.resumed or 0):
            return False
        if run.checkpoint_steps is not None:
            return self.step % run.checkpoint_steps == 0
        return self.bench.clock.now() - self.saved >= run.checkpoint_seconds

    def _open_metrics(self) -> None:
        if self.run.group.rank:
            return
        folder = self.bench.checkpoints
        folder.mkdir(parents=True, exist_ok=True)
        path, beside = folder / "metrics.jsonl", folder / "metrics.part"
        # Rows written after the checkpoint are of steps that are taken again.
        kept = path.read_text(encoding="utf-8").splitlines()[: self.step] if path.exists() else []
        beside.write_text("".join(row + "\n" for row in kept), encoding="utf-8")
        os.replace(beside, path)
        self.losses.extend(json.loads(row)["loss"] for row in kept)
        self.metrics = path.open("a", encoding="utf-8")

    def _save(self) -> None:
        run = self.run
        if run.group.rank == 0 or run.group.sharded:
            if self.metrics:
                self.metrics.flush()
            tensors = {f"model.{name}": tensor for name, tensor in own_state(run.model).items()}
            tensors |= {f"optimiser.{name}": tensor for name, tensor in run.optimiser.state().items()}
            for technique in run.techniques:
                tensors |= {f"{technique.name}:{name}": t for name, t in technique.state().items()}
            facts = {
                "tokens": self.tokens,
                "spent": self._seconds(),
                "sampler": run.sampler.state(),
                "schedule": run.schedule.state(),
                "facts": run.facts,
            }
            folder = run.group.checkpoints(self.bench.checkpoints)
            save_checkpoint(folder, self.step, tensors | random_state(), facts)
        run.group.wait()
        self.saved = self.bench.clock.now()

    def _resume(self, checkpoint: Checkpoint) -> None:
        run, tensors, facts = self.run, checkpoint.tensors, checkpoint.facts

        def below(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

        saved = below("model.")
        with torch.no_grad():
            for name, held in own_state(run.model).items():
                held.copy_(saved[name])
        run.optimiser.load(below("optimiser."))
        for technique in run.techniques:
            technique.load(below(f"{technique.name}:"))
        run.sampler.load(facts["sampler"])
        run.schedule.load(facts["schedule"])
        run.facts.update(facts["facts"])
        set_random_state(tensors)
        self.step, self.tokens, self.spent = checkpoint.step, int(facts["tokens"]), float(facts["spent"])
        self.resumed, self.before = checkpoint.step, self.spent
        self.bench.log(f"going on from step {self.step}")
