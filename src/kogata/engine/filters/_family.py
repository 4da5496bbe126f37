"""A family of rules: checks that each give a forbidden value, and what it takes out of a text before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel

from kogata.engine.filters._view import View


class Check(NamedTuple):
    """One rule: its name with the threshold, and a function giving a forbidden value or None."""

    reason: str
    value: Callable[[View], Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Rules that belong together, the cheap ones first."""

    checks: list[Check] = field(default_factory=list)
    clean: Callable[[View], tuple[str, dict[str, int]]] | None = None
    """Takes lines out of a text: what is left, and how many went for which reason."""


def bound(reason: str, measure: Callable[[View], float | None], threshold: float, *, least: bool) -> Check:
    """Builds the check that a measure is at least, or at most, a threshold; None of a measure passes."""

    def value(view: View) -> float | None:
        found = measure(view)
        if found is None or (found >= threshold if least else found <= threshold):
            return None
        return round(found, 4)

    return Check(f"{reason} {threshold:g}", value)


def bounds(
    settings: BaseModel, measures: Mapping[str, Callable[[View], float | None]], prefix: str = ""
) -> list[Check]:
    """Builds a check per setting called `min_…` or `max_…`; one that is null is not in force.

    Args:
        settings: holds the thresholds.
        measures: setting → what it bounds, in the order to look.
        prefix: the family, put before the setting's name.
    """
    found = []
    for name, measure in measures.items():
        threshold = getattr(settings, name)
        if threshold is not None:
            found.append(bound(prefix + name, measure, threshold, least=name.startswith("min_")))
    return found
