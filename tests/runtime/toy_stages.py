"""Toy stages for tests of the runner: fast, without torch, with every habit a stage can have."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from kogata.core.amounts import Budget, Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.errors import DataError, Stopped
from kogata.core.recipe import Step
from kogata.core.stage import Account, Resolved, SameAs, Share, Slot, Stage


class Words(Stage):
    """Makes a corpus of numbered documents."""

    makes = Kind.CORPUS
    number: int = 3
    fail: bool = False

    def forecast(self, facts: Any, machine: Any, share: Any) -> Forecast:
        return Forecast(
            facts={"documents": self.number}, cost=Cost(seconds=0.1, peak_bytes=10**8), disk_bytes=100
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        list(documents)
        if self.fail:
            raise DataError("a bad row", where="rows.csv:3", found="nothing", expected="text")
        for number in range(self.number):
            account.read += 1
            text = f"文書 {number}"
            yield account.keep(
                Document(id=str(number), text=text, split="heldout" if number == 0 else "train")
            )


class Odd(Stage):
    """Keeps documents with odd numbers."""

    takes: ClassVar = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = SameAs(slot="corpus")
    drop: bool = True

    def forecast(self, facts: Any, machine: Any, share: Any) -> Forecast:
        return Forecast(facts={"documents": facts["corpus"]["documents"]}, cost=Cost(seconds=0.1))

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        for document in documents:
            account.read += 1
            if document.split == "train" and int(document.id) % 2 == 0 and self.drop:
                account.reject("even", document, int(document.id))
                continue
            yield account.keep(document)


class Train(Stage):
    """Counts steps, slowly, keeps a checkpoint, and writes where it began."""

    takes: ClassVar = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.MODEL
    seeded = True
    elastic = True
    parallel = True
    steps: int | None = None
    size: str | int = "auto"
    pause: float = 0.0
    hog_bytes: int = 0
    die: int | None = None
    hang: int | None = None

    def clocked(self, share: Share) -> bool:
        return self.steps is None and share.seconds is not None

    def resolve(self, facts: Any, machine: Any, share: Share) -> Resolved:
        if self.size == "auto":
            size = 1 if share.seconds is None else int(share.seconds)
            return Resolved(
                stage=self.model_copy(update={"size": size}), reasons={"size": "from the seconds"}
            )
        return Resolved(stage=self)

    def forecast(self, facts: Any, machine: Any, share: Share) -> Forecast:
        seconds = share.seconds if self.clocked(share) else (self.steps or 1) * self.pause
        return Forecast(
            facts={"size": self.size}, cost=Cost(seconds=seconds, peak_bytes=10**8), disk_bytes=1000
        )

    def run(self, given: Any, bench: Any) -> dict[str, Any]:
        mark = Path(bench.checkpoints) / "step.json"
        step = json.loads(mark.read_text()) if mark.exists() else 0
        began = step
        hog = bytearray(self.hog_bytes)
        hog[::4096] = b"x" * len(hog[::4096])
        while True:
            if self.steps is not None and step >= self.steps:
                break
            left = bench.left()
            if self.steps is None and (left is None or left < 0.1):
                break
            if bench.stopping():
                raise Stopped("stopped")
            time.sleep(self.pause or 0.01)
            step += 1
            # `>=`: a rank that starts late begins after the steps the first one has already marked.
            if self.die is not None and step >= self.die and bench.rank == bench.world - 1:
                os.kill(os.getpid(), 9)
            if self.hang is not None and step == self.hang and bench.rank == bench.world - 1:
                os.kill(os.getpid(), 19)
            if bench.rank == 0:
                beside = mark.with_suffix(".new")
                beside.write_text(json.dumps(step))
                beside.replace(mark)
            bench.metric({"step": step, "loss": 1 / step})
            bench.progress(step, self.steps, loss=1 / step)
        bench.count(tokens=step * 10, flops=step * 1e6)
        if bench.rank == 0:
            rows = [{"step": number + 1, "loss": 1 / (number + 1)} for number in range(step)]
            (bench.out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (bench.out / "model.txt").write_text(f"{step} {bench.seed if self.steps else 0}")
        return {"training": {"steps": step, "tokens": step * 10}, "world": bench.world, "began": began}


class Score(Stage):
    """Scores a model."""

    takes: ClassVar = {"model": Slot(kinds=(Kind.MODEL,))}
    makes = Kind.SCORES

    def forecast(self, facts: Any, machine: Any, share: Any) -> Forecast:
        return Forecast(cost=Cost(seconds=0.2))

    def run(self, given: Any, bench: Any) -> dict[str, Any]:
        text = (given["model"].path / "model.txt").read_text()
        (bench.out / "scores.json").write_text(text)
        return {"bits_per_byte": {"value": 1.0 + int(text.split()[1]) / 100}}


class Search(Stage):
    """Tries two trainings as a nested run."""

    takes: ClassVar = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CHOICE
    seeded = True

    def forecast(self, facts: Any, machine: Any, share: Any) -> Forecast:
        return Forecast(cost=Cost(seconds=0.5))

    def run(self, given: Any, bench: Any) -> dict[str, Any]:
        steps = [
            Step(
                name="toy.train",
                stage=Train(steps=count),
                label=f"trial-{count}",
                use={"corpus": "toy.words"},
            )
            for count in (1, 2)
        ]
        receipts = bench.run(steps, Budget(), 5)
        (bench.out / "choice.json").write_text("{}")
        return {"trials": [receipt.facts["training"]["steps"] for receipt in receipts]}


def register(registry: Any) -> None:
    """Registers the toys."""
    for stage in (Words, Odd, Train, Score, Search):
        registry.add_stage(f"toy.{stage.__name__.lower()}", stage)
