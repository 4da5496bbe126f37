"""What training sees when: how long the windows are, or how hard the text in them. One way a file.

A way has `Settings`, `make(supply, settings)`, which gives the run's sampler, and, where it only decides the
windows' lengths, `lengths(context, settings)`, so that sampling by source can follow it. A way that measures
difficulty has a setting `by` and says with `seconds(tokens, settings)` what measuring will take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WINDOW_BYTES = 40
"""Of a window whose difficulty is known: its number, place and count."""


def measuring_seconds(choice: Any, tokens: float) -> float:
    """Forecasts the seconds a curriculum measures before training; of a choice not made yet, 0."""
    seconds = getattr(getattr(choice, "variant", None), "seconds", None)
    return 0.0 if seconds is None else float(seconds(tokens, choice.settings))


def measuring_bytes(choice: Any, tokens: float, context: int) -> int:
    """Forecasts the memory a curriculum holds while it measures; of one that measures nothing, 0."""
    by = getattr(getattr(choice, "settings", None), "by", None)
    if by is None:
        return 0
    held = getattr(by.variant, "held_bytes", None)
    return round(WINDOW_BYTES * tokens / context) + (16 * 2**20 if held is None else int(held(by.settings)))


def check_measure(choice: Any, facts: Mapping[str, Any], label: str) -> None:
    """Refuses a measure that asks for what the tokens do not have, before anything runs.

    Args:
        choice: the curriculum.
        facts: of the tokens.
        label: of the stage, for the error.

    Raises:
        RecipeError: the tokens lack what is measured by.
    """
    by = getattr(getattr(choice, "settings", None), "by", None)
    check = None if by is None else getattr(by.variant, "check", None)
    if by is not None and check is not None:
        check(facts, by.settings, label)
