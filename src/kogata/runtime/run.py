"""The run: the only loop over stages. Reuse by key, locks, sealing, fused stages, nested runs, receipts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kogata.core.amounts import Budget, Cost
from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import KogataError, Refused, Stopped
from kogata.core.receipt import Receipt
from kogata.core.recipe import PlannedStep, Recipe, Step, step_from_dict
from kogata.core.stage import Stage
from kogata.runtime.accounting import cost_from, facts_of_member, size_of, split_cost
from kogata.runtime.execute import Job, execute
from kogata.runtime.folder import RunFolder, read_metrics
from kogata.runtime.keys import package_version
from kogata.runtime.ledger import Ledger
from kogata.runtime.meter import Meter
from kogata.runtime.plan import (
    RESERVE_SECONDS,
    Context,
    Known,
    digests_of,
    facts_of,
    share_time,
    wire,
)
from kogata.runtime.store import Found
from kogata.runtime.workers import Group

LEAST_TOLD_SECONDS, MOST_SLOWER = 2.0, 2.0
Screen = Any
"""Anything with `event(name, **facts)`."""


def slowness(forecast_seconds: float, taken_seconds: float) -> float:
    """Gives how many times as long as forecast what follows may take, by what came before.

    Other programs make a computer slower than its profile says: a time budget is kept only if what comes
    after training is given as much more. Short stages tell nothing.
    """
    if forecast_seconds < LEAST_TOLD_SECONDS:
        return 1.0
    return min(MOST_SLOWER, max(1.0, taken_seconds / forecast_seconds))


@dataclass
class Runner:
    """Executes a recipe's steps in order and leaves a receipt of each."""

    context: Context
    folder: RunFolder
    ledger: Ledger
    group: Group
    meter: Meter
    screen: Screen
    deadline: float | None = None
    """On time.monotonic's scale: when the whole run is due."""
    hold_shares: bool = False
    """Give each elastic stage its share and no more (for comparisons at equal time)."""
    fresh: frozenset[str] = frozenset()
    parent: str | None = None
    """Key of the stage that asked for this nested run."""
    outer: dict[str, Known] = field(default_factory=dict)
    """What a nested run may take from its parent's run."""
    receipts: list[Receipt] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    spent: Callable[[], float] = lambda: 0.0
    invocation: str = ""
    asked_to_stop: list[int] = field(default_factory=list)
    forecast_seconds: float = 0.0
    """Of the stages made so far that no clock ended, and what they took."""
    taken_seconds: float = 0.0
    _beat: float = 0.0

    def run(self) -> list[Receipt]:
        """Runs every step; raises what stops it after its receipt is written."""
        steps = self.context.recipe.stages
        inputs, fused = wire(self.context.recipe, self.outer)
        self.known = dict(self.outer)
        members: list[Step] = []
        for position, step in enumerate(steps):
            members.append(step)
            if step.label in fused:
                continue
            self._one(members, inputs, steps[position + 1 :])
            members = []
        return self.receipts

    def _one(self, members: Sequence[Step], inputs: Mapping[str, Any], after: Sequence[Step]) -> None:
        """Makes or finds what one step, or one group of fused steps, makes."""
        planned = [self._planned(step, inputs, last=step is members[-1]) for step in members]
        last = planned[-1]
        assert last.key is not None
        store = self.context.store
        again = not self.fresh.isdisjoint({step.label for step in members} | {step.name for step in members})
        try:
            found = None if again else store.find(last.key)
            if found is None:
                tell = partial(self._say, last.step.label)
                with store.lock(last.key, tell, lambda: bool(self.asked_to_stop)):
                    found = None if again else store.find(last.key)
                    if found is None:
                        self._make(planned, after)
                        return
        except KogataError as error:
            self._failed(planned, error)
            raise
        self._reuse(planned, found)

    def _planned(self, step: Step, inputs: Mapping[str, Any], *, last: bool) -> PlannedStep:
        """Resolves a step with the facts as they really are."""
        share = self.context.share_of(step)
        facts = facts_of(inputs[step.label], self.known)
        try:
            resolved, forecast = self.context.settle(step.stage, facts, share)
            forecast = self.context.beside_torch(resolved.stage, forecast if last else forecast.fused())
            digests = digests_of(inputs[step.label], self.known)
            assert digests is not None, f"{step.label} was reached before its inputs"
            key = self.context.key(step, resolved.stage, digests, share)
        except KogataError as error:
            self._note(step, "", "failed", reason=str(error), cost=Cost(seconds=0.0))
            raise
        kind = resolved.stage.made_kind(facts)
        if not last:
            self.known[step.label] = Known({**forecast.facts, "kind": str(kind)}, f"key:{key}")
        return PlannedStep(
            step=step,
            stage=resolved.stage,
            reasons=resolved.reasons,
            inputs=inputs[step.label],
            kind=str(kind),
            share=share,
            forecast=forecast,
            key=key,
        )

    def _reuse(self, planned: Sequence[PlannedStep], found: Found) -> None:
        last = planned[-1]
        self.known[last.step.label] = Known(
            {**found.artifact.facts, "kind": last.kind}, found.artifact.digest, found.artifact
        )
        members = found.receipt.get("members") or {}
        for item in planned:
            own = item is last
            first = found.first_cost if own else cost_from(members.get(item.step.label))
            receipt = self._note(
                item.step,
                item.key or "",
                "reused",
                planned=item,
                artifact=found.artifact if own else None,
                cost=Cost(seconds=0.0),
                first_cost=first,
                facts=facts_of_member(found.artifact.facts, item.step.label, own),
            )
            self.screen.event("reused", label=item.step.label, receipt=receipt)
        if type(last.stage).trains and not any(
            row.get("stage") == last.step.label for row in read_metrics(self.folder.path)
        ):
            self.folder.set_metrics(last.step.label, read_metrics(found.artifact.path))
        self._deliver(found.artifact)

    def _make(self, planned: Sequence[PlannedStep], after: Sequence[Step]) -> None:
        last = planned[-1]
        assert last.key is not None
        label, store = last.step.label, self.context.store
        count = len(self.context.recipe.stages)
        for item in planned:
            self.screen.event(
                "stage_start",
                label=item.step.label,
                stage=item.step.name,
                index=self.context.recipe.stages.index(item.step) + 1,
                count=count,
                forecast=item.forecast,
            )
        out, checkpoints = store.begin(last.key)
        if type(last.stage).trains and not any(checkpoints.iterdir()):
            self.folder.set_metrics(label, None)
        job = Job(
            request={
                "do": "run",
                "label": label,
                "stages": [
                    {
                        "name": item.step.name,
                        "label": item.step.label,
                        "settings": item.stage.model_dump(mode="json"),
                    }
                    for item in planned
                ],
                "given": self._given(planned[0]),
                "out": str(out),
                "checkpoints": str(checkpoints),
                "seed": self.context.recipe.seed,
                "machine": self.context.machine_of(last.stage).to_dict(),
                "share": vars(last.share),
                "deadline": self._deadline_of(last, after),
                "plugins": [str(path) for path in self.context.recipe.plugin_files()],
            },
            world=last.share.processes,
            memory_limit=_limit(self.context.recipe.budget),
        )
        with self.meter.stage() as measured:
            outcome = execute(job, self.group, self.meter, self._heard, self._nested, self._tick)
        cost = replace(
            measured.cost or Cost(),
            tokens=outcome.tokens,
            flops=outcome.flops,
            **outcome.unmeasured,
        )
        if outcome.error is not None:
            self._failed(planned, outcome.error, cost)
            raise outcome.error
        artifact = store.prepare(last.key, Kind(last.kind), outcome.facts, last.step.name)
        cost = replace(cost, size_bytes=size_of(artifact))
        costs = split_cost(cost, planned, outcome.seconds)
        entry = {
            "stage": last.step.name,
            "settings": last.stage.model_dump(mode="json"),
            "members": {name: part.to_dict() for name, part in costs.items() if name != label},
        }
        store.seal(last.key, artifact, costs[label], entry)
        self.known[label] = Known({**artifact.facts, "kind": last.kind}, artifact.digest, artifact)
        for item in planned:
            own = item is last
            name = item.step.label
            if not (item.stage.elastic and item.stage.clocked(item.share)):
                self.forecast_seconds += item.forecast.cost.seconds or 0.0
                self.taken_seconds += costs[name].seconds or 0.0
            receipt = self._note(
                item.step,
                item.key or "",
                "done" if own else "fused",
                planned=item,
                artifact=artifact if own else None,
                cost=costs[name],
                first_cost=costs[name],
                facts=facts_of_member(artifact.facts, name, own),
            )
            self.screen.event("stage_done", label=name, receipt=receipt)
        if type(last.stage).trains:
            self.folder.settle_metrics(label, read_metrics(artifact.path))
        self._deliver(artifact)

    def _given(self, first: PlannedStep) -> dict[str, Any]:
        def row(label: str) -> dict[str, Any]:
            artifact = self.known[label].artifact
            assert artifact is not None, f"{label} was not made"
            return {
                "kind": str(artifact.kind),
                "digest": artifact.digest,
                "path": str(artifact.path.resolve()),
                "facts": artifact.facts,
            }

        return {
            slot: None
            if label is None
            else [row(one) for one in label]
            if isinstance(label, list)
            else row(label)
            for slot, label in first.inputs.items()
        }

    def _deadline_of(self, item: PlannedStep, after: Sequence[Step]) -> float | None:
        """Says when a stage is due: its own share, or what the stages after it leave."""
        if not item.stage.elastic or not item.stage.clocked(item.share):
            return self.deadline
        if self.hold_shares and item.share.seconds is not None:
            return time.monotonic() + item.share.seconds
        if self.deadline is None:
            return None
        known = dict(self.known)
        known[item.step.label] = Known({**item.forecast.facts, "kind": item.kind}, None)
        rest = 0.0
        inputs, fused = wire(self.context.recipe, self.outer)
        for step in after:
            share = self.context.share_of(step)
            facts = facts_of(inputs[step.label], known)
            resolved, forecast = self.context.settle(step.stage, facts, share)
            stage = resolved.stage
            forecast = forecast.fused() if step.label in fused else forecast
            rest += (share.seconds if stage.clocked(share) else forecast.cost.seconds) or 0.0
            known[step.label] = Known({**forecast.facts, "kind": str(stage.made_kind(facts))}, None)
        if self.parent is None:
            rest += RESERVE_SECONDS
        return self.deadline - rest * slowness(self.forecast_seconds, self.taken_seconds)

    def _heard(self, label: str, event: Mapping[str, Any]) -> None:
        """Passes a worker's event on to the screen and the run's folder."""
        if event["event"] == "progress":
            facts = dict(event.get("facts") or {})
            facts["left_seconds"] = self.deadline - time.monotonic() if self.deadline is not None else None
            facts["memory_bytes"] = self.meter.tree_bytes()
            self.screen.event("progress", label=label, done=event["done"], total=event["total"], facts=facts)
        elif event["event"] == "metric":
            self.folder.add_metric({**event["row"], "stage": label})
        elif event["event"] == "log":
            self.screen.event("log", label=label, text=event["text"])

    def _nested(self, event: Mapping[str, Any], key: str) -> list[Receipt]:
        """Runs the steps a stage asked for, in the same worker, as children of its receipt."""
        recipe = Recipe(
            name=self.context.recipe.name,
            stages=tuple(step_from_dict(row) for row in event["steps"]),
            budget=Budget.model_validate(event["budget"]),
            seed=event["seed"],
            plugins=self.context.recipe.plugins,
        )
        context = replace(self.context, recipe=recipe, shares={}, outside={})
        share_time(context, self.known)
        limit = time.monotonic() + recipe.budget.time if recipe.budget.time else None
        child = replace(
            self,
            context=context,
            parent=key,
            outer=dict(self.known),
            receipts=[],
            known={},
            deadline=min((at for at in (limit, self.deadline) if at is not None), default=None),
        )
        return child.run()

    def _tick(self) -> int | None:
        """Beats the run's heart; gives the signal that asked to stop, if any."""
        now = time.monotonic()
        if now - self._beat > 1.0:
            self._beat = now
            self.folder.beat("running", self.spent(), self.invocation)
        return self.asked_to_stop[0] if self.asked_to_stop else None

    def _failed(self, planned: Sequence[PlannedStep], error: KogataError, cost: Cost | None = None) -> None:
        status = (
            "stopped" if isinstance(error, Stopped) else "refused" if isinstance(error, Refused) else "failed"
        )
        last = planned[-1]
        self._note(
            last.step, last.key or "", status, planned=last, reason=str(error), cost=cost or Cost(seconds=0.0)
        )

    def _note(
        self,
        step: Step,
        key: str,
        status: str,
        *,
        planned: PlannedStep | None = None,
        artifact: Artifact | None = None,
        cost: Cost | None = None,
        first_cost: Cost | None = None,
        facts: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> Receipt:
        stage: Stage = planned.stage if planned else step.stage
        inputs = {}
        if planned is not None:
            inputs = digests_of(planned.inputs, self.known) or {}
        receipt = Receipt(
            key=key,
            label=step.label,
            stage=step.name,
            status=status,
            parent=self.parent,
            settings=stage.model_dump(mode="json"),
            reasons=planned.reasons if planned else {},
            inputs=inputs,
            made=artifact.digest if artifact else None,
            kind=planned.kind if planned else None,
            path=str(artifact.path) if artifact else None,
            forecast=planned.forecast.cost if planned else None,
            cost=cost,
            first_cost=first_cost,
            facts=facts or {},
            seed=self.context.recipe.seed if type(stage).seeded else None,
            machine=self.context.machine.model,
            versions={name: package_version(name) for name in ("kogata", "torch", "transformers")},
            reason=reason,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.ledger.append(receipt)
        self.receipts.append(receipt)
        return receipt

    def _deliver(self, artifact: Artifact) -> None:
        if artifact.kind is Kind.BUNDLE and self.parent is None:
            self.folder.deliver(artifact)

    def _say(self, label: str, text: str) -> None:
        self.screen.event("note", text=f"{label}: {text}")


def _limit(budget: Budget) -> int | None:
    return int(budget.memory * 1.05) if budget.memory else None
