"""What may act on the model while `train.pretrain` trains it. One technique a file.

A technique has `Settings` and `make(settings, decoder)`, which gives what the loop calls at its points. Where
it matters to the plan it has `cost(settings, spec)`, by which the time of a step is multiplied,
`held_bytes(settings, spec)`, and `refuses(settings, spec)`, the reason why such a model cannot have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kogata.core.errors import RecipeError
from kogata.core.registry import registry

if TYPE_CHECKING:
    from kogata.engine.technique import Technique
    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec

FOLDER = "engine.techniques"


def make(chosen: Mapping[str, Any], decoder: Decoder) -> tuple[Technique, ...]:
    """Makes the techniques chosen, by name and settings."""
    return tuple(registry.variant(FOLDER, name).make(settings, decoder) for name, settings in chosen.items())


def cost_of(chosen: Mapping[str, Any], spec: ModelSpec) -> float:
    """Forecasts the time of a step over that of one without them."""
    cost = 1.0
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "cost", None)
        cost *= 1.0 if own is None else own(settings, spec)
    return cost


def held_by(chosen: Mapping[str, Any], spec: ModelSpec) -> int:
    """Forecasts the bytes they hold."""
    held = 0
    for name, settings in chosen.items():
        own = getattr(registry.variant(FOLDER, name), "held_bytes", None)
        held += 0 if own is None else own(settings, spec)
    return held


def check(chosen: Mapping[str, Any], spec: ModelSpec, label: str) -> None:
    """Refuses what the model cannot have, before anything runs.

    Raises:
        RecipeError: naming the technique and the reason.
    """
    for name, settings in chosen.items():
        refuses = getattr(registry.variant(FOLDER, name), "refuses", None)
        reason = refuses(settings, spec) if refuses is not None else None
        if reason:
            found, expected = reason
            raise RecipeError(
                f"this model cannot have the technique {name}",
                where=f"{label}.techniques.{name}",
                found=found,
                expected=expected,
            )
