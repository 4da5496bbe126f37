"""What training sees when: how long the windows are, or how hard the text in them. One way a file.

A way has `Settings`, `make(supply, settings)`, which gives the run's sampler, and, where it only decides the
windows' lengths, `lengths(context, settings)`, so that sampling by source can follow it. A way that measures
difficulty says with `seconds(tokens, settings)` what that will take.
"""

from __future__ import annotations

from typing import Any


def measuring_seconds(choice: Any, tokens: float) -> float:
    """Forecasts the seconds a curriculum measures before and during training; of a choice not made yet, 0."""
    seconds = getattr(getattr(choice, "variant", None), "seconds", None)
    return 0.0 if seconds is None else float(seconds(tokens, choice.settings))
