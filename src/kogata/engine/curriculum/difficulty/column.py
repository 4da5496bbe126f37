"""Takes for hard what a number of your own says, kept beside the tokens by tokenizer.encode.

Pays when: the difficulty or quality is known: a school grade, a year, a classifier's score.
Hurts when: the number is another thing in other sources.
Cost: next to nothing.
Source: common practice.
Measured here: not yet measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.errors import RecipeError
from kogata.core.registry import suggest
from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.supply import FixedWindows, Supply


class Settings(VariantSettings):
    """Settings of `column`."""

    name: str = Field(min_length=1, description="of the number, as in `columns` of tokenizer.encode")
    reverse: bool = Field(default=False, description="the largest number is the easiest, or the best")


def seconds(tokens: float) -> float:
    """Forecasts the time of measuring, on one core."""
    return 0.1 + tokens / 1e8


def check(facts: Mapping[str, Any], settings: Settings, label: str) -> None:
    """Refuses a name that the tokens do not know.

    Raises:
        RecipeError: the tokens keep no such number.
    """
    names: list[str] = list(facts.get("columns") or ())
    if settings.name in names:
        return
    near = suggest(settings.name, names)
    raise RecipeError(
        f"the tokens keep no column {settings.name!r}",
        where=f"stage {label}, curriculum",
        found=", ".join(names) or "no columns",
        expected="a number of every document, kept by tokenizer.encode",
        remedy=f"did you mean {near!r}?"
        if near
        else f"write data.read: {{numbers: [{settings.name}]}} and tokenizer.encode: "
        f"{{columns: [{settings.name}]}}",
    )


def measure(supply: Supply, windows: FixedWindows, settings: Settings) -> np.ndarray:
    """Gives the mean of the number over every window's tokens.

    Raises:
        RecipeError: the tokens keep no such number.
    """
    import numpy as np

    check(supply.facts, settings, supply.label)
    table = supply.store.columns
    assert table is not None, "the facts name columns that are not there"
    values = table[:, list(supply.facts["columns"]).index(settings.name)].astype(np.float64)
    return windows.means(-values if settings.reverse else values)
