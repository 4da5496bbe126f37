"""Recipe, step, plan and clock: what is to be done, and by when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.amounts import Budget, Cost, Forecast
from kogata.core.receipt import Machine
from kogata.core.registry import registry
from kogata.core.stage import Share, Stage


class Clock:
    """Tells the time and how much of it is left. Tests pass a fake `now`.

    Args:
        deadline: on `now`'s scale; None when nothing is due.
        now: seconds, monotonic.
    """

    def __init__(self, deadline: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.deadline, self.now = deadline, now

    def left(self) -> float | None:
        """Gives the seconds until the deadline (negative when past); None without one."""
        return None if self.deadline is None else self.deadline - self.now()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage in a recipe."""

    name: str
    """The stage's name: `data.read`."""
    stage: Stage
    label: str
    """What the recipe calls it (`as`), else the stage's name."""
    use: dict[str, str | list[str]] = field(default_factory=dict)
    """Slot → label, or list of labels."""
    share: float | None = None
    """Part of the elastic time, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A list of stages, a budget and a seed."""

    name: str
    stages: tuple[Step, ...]
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    plugins: tuple[str, ...] = ()
    folder: Path | None = None
    """Where the recipe lies; paths in it are relative to this."""
    source: str | None = None
    """The recipe as its author typed it."""

    def plugin_files(self) -> list[Path]:
        """Lists the plug-in files, found from the recipe's folder."""
        return [((self.folder or Path()) / plugin).absolute() for plugin in self.plugins]

    def to_dict(self, settings: Callable[[Stage], dict[str, Any]] | None = None) -> dict[str, Any]:
        """Gives the recipe as plain values in the form the loader reads.

        Args:
            settings: writes a stage's settings; by default all of them, in full.
        """
        parts: dict[str, Any] = {"name": self.name}
        budget = self.budget.model_dump(mode="json", exclude_none=True)
        if budget:
            parts["budget"] = budget
        parts["seed"] = self.seed
        if self.plugins:
            parts["plugins"] = list(self.plugins)
        parts["stages"] = [step_to_dict(step, settings) for step in self.stages]
        return parts


def step_to_dict(step: Step, settings: Callable[[Stage], dict[str, Any]] | None = None) -> dict[str, Any]:
    """Gives one step as it stands in a recipe file, its settings in full unless `settings` writes them."""
    given = settings(step.stage) if settings else step.stage.model_dump(mode="json")
    if step.label != step.name:
        given["as"] = step.label
    if step.use:
        given["use"] = dict(step.use)
    if step.share is not None:
        given["share"] = step.share
    return {step.name: given}


def step_from_dict(row: dict[str, Any]) -> Step:
    """Reads what `step_to_dict` wrote, for steps that a stage asks for."""
    ((name, parts),) = row.items()
    settings = dict(parts)
    label, use, share = settings.pop("as", name), settings.pop("use", {}), settings.pop("share", None)
    stage = registry.stage(name).model_validate(settings)
    return Step(name=name, stage=stage, label=label, use=use, share=share)


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step that was wired, resolved and forecast."""

    step: Step
    stage: Stage
    """The step's stage with every `auto` that planning can choose chosen."""
    reasons: dict[str, str]
    inputs: dict[str, str | list[str] | None]
    """Slot → label of the step that makes it."""
    kind: str
    share: Share
    forecast: Forecast
    key: str | None = None
    """Known when every input is."""
    reused: bool = False
    fused_into: str | None = None
    """Label of the neighbour that writes for it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe will do and cost."""

    recipe: Recipe
    machine: Machine
    steps: tuple[PlannedStep, ...]
    total: Cost
    disk_bytes: int
    verdict: str
    """`fits`, or why it does not."""
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reserve_seconds: float = 0.0
    """Start-up, sealing and report, counted in the total."""
