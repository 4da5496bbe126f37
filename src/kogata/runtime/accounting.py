"""Accounting: what an artifact weighs, and how a fused group's cost falls to its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kogata.core.amounts import Cost
from kogata.core.artifact import Artifact
from kogata.core.recipe import PlannedStep


def size_of(artifact: Artifact) -> int:
    return sum(path.stat().st_size for path in Path(artifact.path).rglob("*") if path.is_file())


def cost_from(parts: Mapping[str, Any] | None) -> Cost | None:
    return Cost.from_dict(parts) if parts else None


def facts_of_member(facts: dict[str, Any], label: str, own: bool) -> dict[str, Any]:
    """Gives a receipt's facts; of a fused group, each member gets its own account."""
    accounts = facts.get("accounts") or {}
    if own:
        rest = {name: value for name, value in facts.items() if name != "accounts"}
        return rest | ({"account": accounts[label]} if label in accounts else {})
    return {"account": accounts[label]} if label in accounts else {}


def split_cost(cost: Cost, planned: Sequence[PlannedStep], seconds: Mapping[str, float]) -> dict[str, Cost]:
    """Divides a fused group's cost among its members by the seconds each took; the last takes the rest."""
    label = planned[-1].step.label
    if len(planned) == 1 or not cost.seconds:
        return {label: cost}
    parts: dict[str, Cost] = {}
    used = 0.0
    for item in planned[:-1]:
        name = item.step.label
        own = min(seconds.get(name, 0.0), cost.seconds - used)
        used += own
        part = own / cost.seconds
        parts[name] = Cost(
            seconds=own,
            cpu_seconds=None if cost.cpu_seconds is None else cost.cpu_seconds * part,
            joules=cost.joules and cost.joules.scaled(part),
            peak_bytes=cost.peak_bytes,
        )
    part = 1 - used / cost.seconds
    parts[label] = replace(
        cost,
        seconds=cost.seconds - used,
        cpu_seconds=None if cost.cpu_seconds is None else cost.cpu_seconds * part,
        joules=cost.joules and cost.joules.scaled(part),
    )
    return parts
