"""Short trials before a run: the same rows from the same start, each way once; then all is as it was.

What is tried takes the steps of the one training loop, in a folder of its own: a trial that was killed goes
on from its checkpoint, and one that was done is not done again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogata.core.errors import RecipeError
from kogata.core.stage import Bench
from kogata.engine.checkpoint import random_state, set_random_state
from kogata.engine.heap import kept
from kogata.engine.loop import Training, train
from kogata.engine.parallel import Group

WITHIN = 1.02
"""The upper layers alone are taken where their held-out loss is at most this many times that of all."""


class _Aside:
    """A bench whose steps are no steps of the run: they are counted, but leave no rows and no progress."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.checkpoints = bench, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bench, name)

    def metric(self, row: Mapping[str, Any]) -> None:
        """Keeps the row out of the run's metrics."""

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        """Shows what is tried at the beginning of the run."""
        self.bench.progress(0.0, 1.0, **facts)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way of training."""

    training: Training
    """Its sampler and its tensors are put back where they were."""
    named: Sequence[tuple[str, Tensor]]
    """What is trained."""
    look: Callable[[], float] | None = None
    """Measures the held-out loss after the last step."""


@dataclass(kw_only=True)
class Trials:
    """Tries ways of training from one start.

    Args:
        bench: of the stage.
        group: the processes.
        rows: a row for each step taken, as `trials.jsonl` holds them.
    """

    bench: Bench
    group: Group
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, name: str, make: Callable[[], Trial]) -> dict[str, Any]:
        """Trains one way, puts everything back, and gives the losses.

        Args:
            name: says what is tried, in a file's name too.
            make: makes the trial, where it was not done before.

        Returns:
            `losses` by step, and `heldout`; no losses where training diverged.
        """
        folder = self._folder / name
        found = self._once(name, lambda: self._train(folder, make()))
        if self.group.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        for step, loss in enumerate(found["losses"], 1):
            self.rows.append({"trial": name, "step": step, "loss": loss})
        return found

    def settled(self, name: str, steps: int) -> int:
        """Gives the steps that were chosen first: a run that is resumed with less time left keeps to them."""
        return self._once(f"{name}-steps", lambda: steps)

    @property
    def _folder(self) -> Path:
        return self.bench.checkpoints / "trials"

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        """Gives what the first process found, now or before the run was killed."""
        done, beside = self._folder / f"{name}.json", self._folder / f"{name}.part"
        if not self.group.share_numbers([done.exists()])[0]:
            found = find()
            if self.group.rank == 0:
                self._folder.mkdir(parents=True, exist_ok=True)
                beside.write_text(json.dumps(found), encoding="utf-8")
                os.replace(beside, done)
        return json.loads(self.group.share_bytes(done.read_bytes() if self.group.rank == 0 else b""))

    def _train(self, folder: Path, trial: Trial) -> dict[str, Any]:
        run, chance = trial.training, random_state()
        held = [tensor.detach().clone() for _, tensor in trial.named]
        place = run.sampler.state()
        try:
            with kept():
                outcome = train(run, _Aside(self.bench, folder))  # type: ignore[arg-type]
            self.group.wait()
            if self.group.rank:
                return {}  # The first process writes what was found, and removes the folder.
            lines = outcome.metrics.read_text(encoding="utf-8").splitlines()
            losses = [json.loads(line)["loss"] for line in lines]
            return {"losses": losses, "heldout": None if trial.look is None else trial.look()}
        except RecipeError:
            return {"losses": [], "heldout": None}
        finally:
            run.optimiser.clear()
            run.sampler.load(place)
            set_random_state(chance)
            with torch.no_grad():
                for (_, tensor), before in zip(trial.named, held, strict=True):
                    tensor.copy_(before)

    def write(self, folder: Path) -> None:
        """Writes what was tried as `trials.jsonl`; nothing where nothing was."""
        if self.rows and self.group.rank == 0:
            lines = "".join(json.dumps(row) + "\n" for row in self.rows)
            (folder / "trials.jsonl").write_text(lines, encoding="utf-8")


def smoothed(losses: Sequence[float]) -> float:
    """Gives the mean loss of the later half of the steps; infinite where training diverged."""
    late = losses[len(losses) // 2 :]
    return math.fsum(late) / len(late) if late else math.inf


def best_rate(tried: Mapping[float, Sequence[float]]) -> float:
    """Gives the rate with the lowest smoothed loss; the smallest one where all diverged."""
    return min(tried, key=lambda rate: (smoothed(tried[rate]), rate))


def suffices(upper: float | None, whole: float | None) -> bool:
    """Says whether training the upper layers alone comes near enough, by held-out losses."""
    return upper is not None and (whole is None or upper <= WITHIN * whole)
