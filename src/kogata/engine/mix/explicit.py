"""Weighs each source as the user says.

Pays when: the use is known: most of one kind of text, some of another.
Hurts when: the weights are a guess: compare them with `proportional`.
Cost: nothing.
Source: common practice.
Measured here: not yet measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from kogata.core.errors import RecipeError
from kogata.core.registry import suggest
from kogata.core.variants import VariantSettings


class Settings(VariantSettings):
    """Settings of `explicit`."""

    weights: dict[str, float] = Field(
        description="source → its part of the mixture, for example {novels: 3, manuals: 1}; any "
        "positive numbers"
    )

    @field_validator("weights")
    @classmethod
    def _sensible(cls, value: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= weight < float("inf") for weight in value.values()) or not any(value.values()):
            raise ValueError(f"found {value}; weights are numbers from 0 up, at least one of them above 0")
        return value


def weigh(sizes: Mapping[str, int], settings: Settings) -> dict[str, float]:
    """Gives the weights as they were given.

    Raises:
        RecipeError: they name a source that there is not, or leave one out.
    """
    for name in settings.weights:
        if name not in sizes:
            near = suggest(name, sizes)
            raise RecipeError(
                f"the weights name {name!r}, which is no source",
                where="weights",
                expected=f"one of {', '.join(sizes)}",
                remedy=f"did you mean {near!r}?" if near else None,
            )
    missing = [name for name in sizes if name not in settings.weights]
    if missing:
        raise RecipeError(
            f"the weights leave out {', '.join(map(repr, missing))}",
            where="weights",
            found=", ".join(settings.weights),
            expected="a weight for every source, 0 for one that is not wanted",
        )
    return {name: settings.weights[name] for name in sizes}
