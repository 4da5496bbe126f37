"""The plan: a recipe wired, resolved and forecast, with a verdict, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kogata.core.amounts import Budget, Cost, Forecast, format_bytes, format_joules, format_seconds
from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import Refused
from kogata.core.receipt import Machine
from kogata.core.recipe import Plan, PlannedStep, Recipe, Step
from kogata.core.stage import Facts, Resolved, SameAs, Share, Stage
from kogata.runtime.keys import Address, key_of, outside_content
from kogata.runtime.store import Found, Store
from kogata.runtime.wire import Inputs, Wiring, fuse

RESERVE_SECONDS = 1.2
"""Sealing and the report at the end of a run (measured 0.4 to 1.0 s)."""
START_SECONDS = 3.0
"""The start of the process and its worker: interpreter and torch (measured on 2 cores)."""
LEAST_ELASTIC_SECONDS = 5.0
"""An elastic stage with less time than this cannot do anything useful."""
WARM_BYTES = 230 * 2**20
"""What the worker holds during stages that need no torch, where it imports torch ahead of training; and
part of what the compiler of the kernels takes for a moment, in one of these stages or between them."""
MEMORY_RESERVE = 0.15
"""Share of the available memory that a run without a memory budget leaves alone."""


@dataclass
class Context:
    """What planning and running share: the store, the machine, the frozen shares and who asks."""

    recipe: Recipe
    machine: Machine
    store: Store
    run_id: str | None = None
    """Names the run folder; a result made against the clock is reused only there."""
    shares: dict[str, float] = field(default_factory=dict)
    """Label → seconds of each elastic stage, frozen in plan.json."""
    processes: int = 1
    """Of all computers together."""
    nodes: int = 1
    memory_bytes: int | None = None
    """What is available, where the budget names none."""
    outside: dict[str, dict[Address, str]] = field(default_factory=dict)
    warm: bool = False
    """The worker imports torch at its start, for training that follows; set by `make_plan`."""

    def machine_of(self, stage: Stage) -> Machine:
        """Gives what does a stage's work: this computer, or for one that is divided all of them as one."""
        return self.machine.times(self.nodes if type(stage).parallel else 1)

    def settle(
        self, stage: Stage, facts: Mapping[str, Facts | None], share: Share
    ) -> tuple[Resolved, Forecast]:
        """Resolves a stage and forecasts what it will make, by what does its work."""
        machine = self.machine_of(stage)
        resolved = stage.resolve(facts, machine, share)
        return resolved, resolved.stage.forecast(facts, machine, share)

    def beside_torch(self, stage: Stage, forecast: Forecast) -> Forecast:
        """Adds the torch a warm worker holds to the forecast of a stage that does not count it.

        Of a stage that several computers do, the memory is that of one of them.
        """
        cost = forecast.cost
        if self.nodes > 1 and type(stage).parallel and cost.peak_bytes is not None:
            return replace(forecast, cost=replace(cost, peak_bytes=cost.peak_bytes // self.nodes))
        counted = type(stage).trains or type(stage).imports_torch
        if not self.warm or counted or cost.peak_bytes is None:
            return forecast
        return replace(forecast, cost=replace(cost, peak_bytes=cost.peak_bytes + WARM_BYTES))

    def share_of(self, step: Step) -> Share:
        """Gives what one step may spend."""
        budget = self.recipe.budget
        memory = budget.memory or self.memory_bytes
        if memory is not None and type(step.stage).parallel:
            memory *= self.nodes
        return Share(
            seconds=self.shares.get(step.label) if step.stage.elastic else None,
            budget_seconds=budget.time,
            memory_bytes=memory,
            size_bytes=budget.size,
            energy_joules=budget.energy,
            processes=self.processes if type(step.stage).parallel else 1,
        )

    def key(self, step: Step, stage: Any, inputs: Mapping[str, Any], share: Share) -> str:
        """Names what a resolved step will make from inputs whose digests are known."""
        if step.label not in self.outside:
            self.outside[step.label] = outside_content(stage)
        clock = None
        if stage.clocked(share):
            clock = {"run": self.run_id or "none yet", "share": share.seconds}
        return key_of(
            step.name,
            stage,
            inputs,
            seed=self.recipe.seed,
            world=share.processes,
            device=self.machine.device,
            clock=clock,
            content=self.outside[step.label],
        )


@dataclass(frozen=True)
class Known:
    """What the walk knows of one step's result: forecast facts, or the real artifact."""

    facts: Facts
    digest: str | None
    """The artifact's digest, or `key:…` of a fused neighbour; None when not made yet."""
    artifact: Artifact | None = None


def facts_of(inputs: Inputs, known: Mapping[str, Known]) -> dict[str, Facts | None]:
    """Gathers the facts of a step's inputs by slot."""
    gathered: dict[str, Facts | None] = {}
    for slot, label in inputs.items():
        if label is None:
            gathered[slot] = None
        elif isinstance(label, list):
            gathered[slot] = {"many": [{"label": item, **known[item].facts} for item in label]}
        else:
            gathered[slot] = known[label].facts
    return gathered


def digests_of(inputs: Inputs, known: Mapping[str, Known]) -> dict[str, Any] | None:
    """Gathers the digests of a step's inputs by slot; None when one is not made yet."""
    gathered: dict[str, Any] = {}
    for slot, label in inputs.items():
        labels = label if isinstance(label, list) else [label] if label is not None else []
        digests = [known[item].digest for item in labels]
        if any(digest is None for digest in digests):
            return None
        gathered[slot] = digests if isinstance(label, list) else digests[0] if digests else None
    return gathered


def wire(
    recipe: Recipe, outer: Mapping[str, Known] | None = None
) -> tuple[dict[str, Inputs], dict[str, str]]:
    """Wires a recipe: label → inputs, and which steps are fused into which.

    A nested recipe may also take what its parent's run made (`outer`).

    Raises:
        RecipeError: an input is missing, ambiguous or unfit.
    """
    wiring = Wiring()
    for label, item in (outer or {}).items():
        wiring.made[label] = Kind(item.facts["kind"])
    inputs: dict[str, Inputs] = {}
    for step in recipe.stages:
        inputs[step.label] = wiring.inputs_of(step)
        wiring.place(step, inputs[step.label], _kind_before(step, inputs[step.label], wiring))
    return inputs, fuse(recipe.stages, inputs)


def _kind_before(step: Step, inputs: Inputs, wiring: Wiring) -> Kind:
    """Says what kind a step makes from kinds alone."""
    makes = type(step.stage).makes
    if isinstance(makes, SameAs):
        label = inputs[makes.slot]
        assert isinstance(label, str)
        return wiring.made[label]
    return step.stage.made_kind({})


def walk(
    context: Context, *, find: bool = True, outer: Mapping[str, Known] | None = None
) -> tuple[list[PlannedStep], dict[str, Known]]:
    """Threads facts through the recipe: real ones where the store has the artifact, forecasts elsewhere."""
    inputs, fused = wire(context.recipe, outer)
    known: dict[str, Known] = dict(outer or {})
    planned: list[PlannedStep] = []
    for step in context.recipe.stages:
        share = context.share_of(step)
        facts = facts_of(inputs[step.label], known)
        resolved, forecast = context.settle(step.stage, facts, share)
        stage = resolved.stage
        kind = stage.made_kind(facts)
        forecast = forecast.fused() if step.label in fused else forecast
        digests = digests_of(inputs[step.label], known)
        key = context.key(step, stage, digests, share) if digests is not None else None
        found: Found | None = None
        if key is not None and find and step.label not in fused:
            found = context.store.find(key, verify=False)
        if found is not None:
            known[step.label] = Known(
                {**found.artifact.facts, "kind": str(kind)}, found.artifact.digest, found.artifact
            )
        else:
            digest = f"key:{key}" if key is not None and step.label in fused else None
            known[step.label] = Known({**forecast.facts, "kind": str(kind)}, digest)
        planned.append(
            PlannedStep(
                step=step,
                stage=stage,
                reasons=resolved.reasons,
                inputs=inputs[step.label],
                kind=str(kind),
                share=share,
                forecast=forecast,
                key=key,
                reused=found is not None,
                fused_into=fused.get(step.label),
            )
        )
    for position in range(len(planned) - 2, -1, -1):
        item, after = planned[position], planned[position + 1]
        if item.fused_into == after.step.label and after.reused:
            planned[position] = replace(item, reused=True)
    return planned, known


def share_time(context: Context, outer: Mapping[str, Known] | None = None) -> None:
    """Gives each elastic stage its part of the time budget: what the others leave, less a reserve.

    What is reused counts as if it were made, so that the shares do not depend on what the store holds.
    """
    budget = context.recipe.budget.time
    elastic = [step for step in context.recipe.stages if step.stage.elastic]
    if budget is None or not elastic:
        return
    asked = {step.label: step.share for step in elastic}
    given = sum(part for part in asked.values() if part is not None)
    free = [label for label, part in asked.items() if part is None]
    parts = {label: part if part is not None else (1 - given) / len(free) for label, part in asked.items()}
    rest = 0.25 * budget
    for _ in range(3):
        for label, part in parts.items():
            context.shares[label] = round(max(LEAST_ELASTIC_SECONDS, part * (budget - rest)), 1)
        planned, _ = walk(context, find=False, outer=outer)
        rest = (
            RESERVE_SECONDS
            + START_SECONDS
            + sum(
                item.forecast.cost.seconds or 0.0
                for item in planned
                if not (item.step.label in parts and item.stage.clocked(item.share))
            )
        )


def make_plan(context: Context) -> Plan:
    """Plans a recipe: shares, wiring, forecasts, verdict. Reads the store, writes nothing."""
    if not context.shares:
        share_time(context)
    planned, _ = walk(context)
    context.warm = any(type(item.stage).trains and not item.reused for item in planned)
    planned = [replace(item, forecast=context.beside_torch(item.stage, item.forecast)) for item in planned]
    total = Cost(seconds=RESERVE_SECONDS + START_SECONDS)
    disk = 0
    for item in planned:
        cost = item.forecast.cost
        if item.reused:
            cost = Cost(seconds=0.0, size_bytes=cost.size_bytes)
        else:
            disk += item.forecast.disk_bytes
        total = total + cost
    if context.recipe.budget.time and total.seconds is not None:
        clocked = [item for item in planned if item.stage.elastic and item.stage.clocked(item.share)]
        if clocked and not any(item.reused for item in clocked):
            total = replace(total, seconds=max(total.seconds, context.recipe.budget.time))
    notes = []
    if context.recipe.budget.gpu_memory is not None and context.machine.device == "cpu":
        notes.append("gpu_memory binds nothing: no GPU is used here")
    refusals = tuple(_refusals(context, planned, total, disk))
    verdict = "fits the budget" if not refusals else "; ".join(refusals)
    return Plan(
        recipe=context.recipe,
        machine=context.machine,
        steps=tuple(planned),
        total=total,
        disk_bytes=disk,
        verdict=verdict,
        refusals=refusals,
        notes=tuple(notes),
        reserve_seconds=RESERVE_SECONDS,
    )


def _refusals(context: Context, planned: list[PlannedStep], total: Cost, disk: int) -> list[str]:
    budget: Budget = context.recipe.budget
    found: list[str] = []
    clocked = {item.step.label for item in planned if item.stage.elastic and item.stage.clocked(item.share)}
    if budget.time is not None:
        others = (
            RESERVE_SECONDS
            + START_SECONDS
            + sum(
                item.forecast.cost.seconds or 0.0
                for item in planned
                if item.step.label not in clocked and not item.reused
            )
        )
        least = others + LEAST_ELASTIC_SECONDS * len(clocked)
        if least > budget.time:
            found.append(
                f"time: the stages need {format_seconds(least)}, the budget is {format_seconds(budget.time)}"
            )
    if budget.memory is not None and total.peak_bytes is not None and total.peak_bytes > budget.memory:
        worst = max(planned, key=lambda item: item.forecast.cost.peak_bytes or 0)
        over = format_bytes(total.peak_bytes - budget.memory)
        advice = f" ({worst.forecast.advice})" if worst.forecast.advice else ""
        found.append(
            f"memory: {worst.step.label} needs {format_bytes(total.peak_bytes)}, {over} more than "
            f"the budget of {format_bytes(budget.memory)}{advice}"
        )
    on_gpu = [item for item in planned if type(item.stage).trains and context.machine.device != "cpu"]
    for item in on_gpu:
        needed = item.forecast.cost.peak_bytes
        if budget.gpu_memory is not None and needed is not None and needed > budget.gpu_memory:
            found.append(
                f"gpu_memory: {item.step.label} needs about {format_bytes(needed)}, "
                f"the budget is {format_bytes(budget.gpu_memory)}"
            )
    if budget.energy is not None and total.joules is not None and total.joules.high > budget.energy:
        found.append(
            f"energy: up to {format_joules(total.joules.high)}, the budget is {format_joules(budget.energy)}"
        )
    exported = [item for item in planned if item.kind == Kind.BUNDLE]
    made = exported or [item for item in planned if item.kind == Kind.MODEL]
    sizes = [item.forecast.cost.size_bytes or 0 for item in made]
    if budget.size is not None and max(sizes, default=0) > budget.size:
        found.append(f"size: a file of {format_bytes(max(sizes))}, the budget is {format_bytes(budget.size)}")
    from kogata.runtime.system import free_disk, home

    free = free_disk(home())
    if free is not None and disk > free:
        found.append(f"disk: the run writes {format_bytes(disk)}, free are {format_bytes(free)}")
    return found


def refuse(plan: Plan) -> None:
    """Raises `Refused` when the plan does not fit its budget."""
    if plan.refusals:
        raise Refused(
            "the budget cannot hold this plan",
            where=plan.recipe.name,
            found=plan.verdict,
            remedy="raise that part of the budget (--budget time=10min), or spend less: see `kogata plan`",
        )
