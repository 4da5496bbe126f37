"""What may act on the model while `train.pretrain` trains it. One technique a file.

A technique has `Settings` and `make(settings, decoder)`, which gives what the loop calls at its points. Where
it matters to the plan it has

* `cost(settings, spec)`, by which the time of a step is multiplied, and `work(settings, spec, context)`, by
  which the products of a token are;
* `seconds(settings, tokens, machine)` before the first step, for a text of so many tokens;
* `held_bytes(settings, spec)`, and `text_bytes(settings, tokens)` that it holds of the text;
* `phases(settings)`: what shares of training have steps of how many times `batch`;
* `refuses(settings, spec)`, why such a model cannot have it, and `refuses_course(settings, course)`,
  why such a training cannot;
* `replayed(settings, training)`: settings that replay a training by its steps, where a clock ended it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kogata.core.errors import RecipeError
from kogata.core.registry import registry

if TYPE_CHECKING:
    from kogata.core.receipt import Machine
    from kogata.core.variants import Choice
    from kogata.engine.technique import Technique
    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec

FOLDER = "engine.techniques"
WHOLE = [(1.0, 1.0)]
"""Phases of a training whose steps are all of one size."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a training goes, as far as a technique may mind."""

    batch: int
    """Tokens of a step."""
    context: int
    """Tokens of a window."""
    curriculum: Choice
    sampling: Choice
    apart: bool = False
    """Whether no token sees another document."""


def make(chosen: Mapping[str, Any], decoder: Decoder) -> tuple[Technique, ...]:
    """Makes the techniques chosen, by name and settings."""
    return tuple(registry.variant(FOLDER, name).make(settings, decoder) for name, settings in chosen.items())


def phases(chosen: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Lists what shares of training have steps of how many times `batch`, one after another."""
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "phases", None)
        if own is not None:
            return own(settings)
    return WHOLE


def mean_batch(chosen: Mapping[str, Any], batch: int) -> int:
    """Gives the tokens of a step, the mean over all steps."""
    return round(batch * sum(share * times for share, times in phases(chosen)))


def largest_batch(chosen: Mapping[str, Any], batch: int) -> int:
    """Gives the tokens of the largest step."""
    return round(batch * max(times for _, times in phases(chosen)))


def work_of(chosen: Mapping[str, Any], spec: ModelSpec, context: int) -> float:
    """Forecasts a token's products over those of one without techniques, the mean over training."""
    work = 1.0
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "work", None)
        work *= 1.0 if own is None else own(settings, spec, context)
    return work


def replayed(chosen: Mapping[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Gives the setting `techniques` that replays a training by its steps; nothing where it is the same."""
    found = dict(chosen)
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "replayed", None)
        found[name] = settings if own is None else own(settings, training)
    if found == dict(chosen):
        return {}
    return {"techniques": {name: settings.model_dump(mode="json") for name, settings in found.items()}}


def cost_of(chosen: Mapping[str, Any], spec: ModelSpec) -> float:
    """Forecasts the time of a step over that of one without them."""
    cost = 1.0
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "cost", None)
        cost *= 1.0 if own is None else own(settings, spec)
    return cost


def seconds_before(chosen: Mapping[str, Any], tokens: int, machine: Machine) -> float:
    """Forecasts the seconds they take before the first step, for a text of so many tokens."""
    seconds = 0.0
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "seconds", None)
        seconds += 0.0 if own is None else own(settings, tokens, machine)
    return seconds


def held_by(chosen: Mapping[str, Any], spec: ModelSpec, tokens: int = 0) -> int:
    """Forecasts the bytes they hold, for a text of so many tokens."""
    held = 0
    for name, settings in chosen.items():
        variant = registry.variant(FOLDER, name)
        for hook, of in (("held_bytes", spec), ("text_bytes", tokens)):
            own = getattr(variant, hook, None)
            held += 0 if own is None else own(settings, of)
    return held


def check(chosen: Mapping[str, Any], spec: ModelSpec, label: str, course: Course | None = None) -> None:
    """Refuses what the model cannot have or its training cannot do, before anything runs.

    Raises:
        RecipeError: naming the technique and the reason.
    """
    for name, settings in chosen.items():
        variant, what = registry.variant(FOLDER, name), "model"
        refuses = getattr(variant, "refuses", None)
        reason = refuses(settings, spec) if refuses is not None else None
        refuses = getattr(variant, "refuses_course", None)
        if not reason and refuses is not None and course is not None:
            reason, what = refuses(settings, course), "training"
        if reason:
            found, expected = reason
            raise RecipeError(
                f"this {what} cannot have the technique {name}",
                where=f"{label}.techniques.{name}",
                found=found,
                expected=expected,
            )
