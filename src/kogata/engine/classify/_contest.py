"""Judges methods on rows they were not trained on, and says which one to keep and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from kogata.core.receipt import Machine
from kogata.core.recipe import Clock
from kogata.core.stage import Bench, Share
from kogata.engine.classify._scores import confused, lead, scores

NOTES = "judged.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method that takes part."""

    name: str
    module: ModuleType
    settings: Any
    seconds: float
    """Forecast of one training on all rows."""
    folds: int
    """On how many folds it is judged, where folds are the judge."""


@dataclass(kw_only=True)
class PartBench:
    """A bench for one training among several: its own checkpoints, its part of the time, steps that go on."""

    bench: Bench
    checkpoints: Path
    share: Share
    seed: int
    steps_before: int = 0
    steps: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        self.label = self.bench.label
        self.out: Path = self.bench.out
        self.device: str = self.bench.device
        self.machine: Machine = self.bench.machine
        self.clock: Clock = self.bench.clock
        self.rank, self.world = 0, 1

    def left(self) -> float | None:
        """Gives the seconds left for the whole stage."""
        return self.bench.left()

    def stopping(self) -> bool:
        """Says whether someone asked to stop."""
        return self.bench.stopping()

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        """Reports progress of this training."""
        self.bench.progress(done, total, **facts)

    def metric(self, row: Mapping[str, Any]) -> None:
        """Appends a row whose steps go on from the training before."""
        self.steps = int(row["step"])
        self.bench.metric({**row, "step": self.steps_before + self.steps})

    def log(self, text: str) -> None:
        """Says one line."""
        self.bench.log(text)

    def count(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        """Adds to the stage's cost."""
        self.bench.count(tokens=tokens, flops=flops)

    def run(self, steps: Any, budget: Any, seed: int) -> Any:
        """Runs nested steps."""
        return self.bench.run(steps, budget, seed)


@dataclass(kw_only=True)
class Contest:
    """Trains and judges entries, keeps the best. What is judged of a row, and how, a subclass may say.

    Args:
        task: the training rows.
        heldout: the rows that judge; None: folds of the training rows do.
        parts: the folds, (rows to fit, rows to judge).
        bench: the stage's.
        seconds: for all trainings together; None without a time budget.
    """

    MEASURE: ClassVar[str] = "accuracy"
    """By which entries are compared."""
    AHEAD: ClassVar[str] = "points more accurate than"

    task: Any
    heldout: Any
    parts: Sequence[tuple[np.ndarray, np.ndarray]]
    bench: Bench
    seconds: float | None
    guesses: dict[str, dict[int, list[Any]]] = field(default_factory=dict)
    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    done: float = 0.0

    def judge(self, entries: Sequence[Entry], asked: str | None) -> tuple[Entry, str]:
        """Judges every entry, cheapest first; gives the one to keep, with the reason.

        Args:
            entries: the methods.
            asked: the method the user named, which is kept whatever the others reach.
        """
        order = sorted(entries, key=lambda entry: entry.seconds)
        self.ahead = sum(self._cost(entry) for entry in order)
        if self.heldout is None:
            # Where folds judge, the one that is kept is trained once more, on all rows.
            self.ahead += max(entry.seconds for entry in order)
        best = order[0]
        for entry in order:
            self._judge(entry)
            self.bench.log(f"{entry.name}: {self._said(self.table[entry.name])}")
            if entry is not best and self._leads(entry, best):
                best = entry
            keep = {best.name, asked}
            self.kept = {name: held for name, held in self.kept.items() if name in keep}
        if asked is not None:
            return next(entry for entry in order if entry.name == asked), "as asked"
        return best, self._reason(best, order)

    def final(self, entry: Entry) -> Any:
        """Gives the entry trained on all training rows."""
        if entry.name in self.kept:
            return self.kept[entry.name]
        return self._fit(entry, self.task, "whole")

    def confused(self, entry: Entry) -> list[Any]:
        """Lists the labels most often taken for each other."""
        targets, guesses = self._judged(entry.name)
        return confused(np.array(targets), np.array(guesses), self.task.names)

    # What is judged, and how

    def _guess(self, made: Any, held: Any) -> list[Any]:
        """Gives what it makes of each row, as JSON values."""
        return made.probabilities(held.texts).argmax(1).tolist()

    def _truth(self, task: Any) -> list[Any]:
        """Gives what should be made of each row."""
        return task.targets.tolist()

    def _scores(self, truth: list[Any], guesses: list[Any]) -> dict[str, Any]:
        return scores(np.array(truth), np.array(guesses), self.task.classes)

    def _lead_of(self, truth: list[Any], first: list[Any], second: list[Any]) -> tuple[float, float]:
        return lead(np.array(truth), np.array(first), np.array(second))

    def _said(self, shown: Mapping[str, Any]) -> str:
        return (
            f"{100 * shown['accuracy']:.1f} ± {100 * shown['standard_error']:.1f} % of "
            f"{shown['n']:,} {shown['judged_on']} rows right, macro-F1 {shown['macro_f1']:.3f}"
        )

    # Inside

    def _cost(self, entry: Entry) -> float:
        if self.heldout is not None:
            return entry.seconds
        count = len(self.parts)
        return min(entry.folds, count) * entry.seconds * (1 - 1 / max(2, count))

    def _judge(self, entry: Entry) -> None:
        notes = self._notes()
        found: dict[int, list[Any]] = {}
        if self.heldout is not None:
            judged: list[tuple[Any, Any]] = [(self.task, self.heldout)]
        else:
            some = self.parts[: entry.folds]
            judged = [(self.task.part(fitted), self.task.part(held)) for fitted, held in some]
        for number, (fitted, held) in enumerate(judged):
            name = f"{entry.name}-{number}"
            if name in notes:
                # Judged before a kill: its steps and its part of the time count as if done now.
                found[number] = notes[name]["guesses"]
                self.steps = int(notes[name]["steps"])
                self.done += self._seconds(entry, fitted)
                continue
            part = "whole" if self.heldout is not None else str(number)
            classifier = self._fit(entry, fitted, part)
            found[number] = self._guess(classifier, held)
            if self.heldout is not None:
                self.kept[entry.name] = classifier
            else:
                shutil.rmtree(self._folder(entry, part), ignore_errors=True)
            self._note(name, found[number])
        self.guesses[entry.name] = found
        targets, guesses = self._judged(entry.name)
        where = "held-out" if self.heldout is not None else "cross-validated"
        self.table[entry.name] = {**self._scores(targets, guesses), "judged_on": where}
        if self.heldout is None:
            self.table[entry.name]["folds"] = len(found)

    def _fit(self, entry: Entry, task: Any, part: str) -> Any:
        cost = self._seconds(entry, task)
        limit = None
        if self.seconds is not None:
            left = self.bench.left()
            left = self.seconds if left is None else min(left, self.seconds)
            limit = max(1.0, 0.9 * left * cost / max(cost, self.ahead - self.done))
        self.done += cost
        bench = PartBench(
            bench=self.bench,
            checkpoints=self._folder(entry, part),
            share=replace(self.bench.share, seconds=limit),
            seed=task.seed,
            steps_before=self.steps,
        )
        made = entry.module.fit(entry.settings, task, bench)
        self.steps += bench.steps
        return made

    def _seconds(self, entry: Entry, task: Any) -> float:
        """Forecasts one training on so many of the rows."""
        return entry.seconds * len(task) / len(self.task)

    def _folder(self, entry: Entry, part: str) -> Path:
        return self.bench.checkpoints / f"{entry.name}-{part}"

    def _judged(self, name: str, folds: int | None = None) -> tuple[list[Any], list[Any]]:
        found = self.guesses[name]
        chosen = sorted(found)[:folds]
        if self.heldout is not None:
            return self._truth(self.heldout), found[0]
        truth = [row for number in chosen for row in self._truth(self.task.part(self.parts[number][1]))]
        return truth, [guess for number in chosen for guess in found[number]]

    def _lead(self, entry: Entry, other: Entry) -> tuple[float, float]:
        folds = min(len(self.guesses[entry.name]), len(self.guesses[other.name]))
        targets, first = self._judged(entry.name, folds)
        return self._lead_of(targets, first, self._judged(other.name, folds)[1])

    def _leads(self, entry: Entry, other: Entry) -> bool:
        gap, error = self._lead(entry, other)
        return gap > error

    def _reason(self, best: Entry, order: Sequence[Entry]) -> str:
        if len(order) == 1:
            return "the only method that could run"
        others = [entry for entry in order if entry is not best]
        rival = max(others, key=lambda entry: self.table[entry.name][self.MEASURE])
        gap, error = self._lead(best, rival)
        if gap > error:
            return f"{100 * gap:.1f} ± {100 * error:.1f} {self.AHEAD} {rival.name} on the same rows"
        return (
            f"{rival.name} is {-100 * gap:+.1f} ± {100 * error:.1f} points on the same rows: "
            f"no clear lead over the cheaper method"
        )

    def _notes(self) -> dict[str, Any]:
        path = self.bench.checkpoints / NOTES
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _note(self, name: str, guesses: list[Any]) -> None:
        from kogata.engine.hf_folder import write_json

        self.bench.checkpoints.mkdir(parents=True, exist_ok=True)
        notes = {**self._notes(), name: {"guesses": guesses, "steps": self.steps}}
        write_json(self.bench.checkpoints / NOTES, notes)
