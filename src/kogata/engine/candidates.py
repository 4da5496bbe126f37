"""Which methods of a contest take part, and on how many folds each is judged: what suits rows and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kogata.core.amounts import Cost, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.registry import registry

if TYPE_CHECKING:
    from kogata.engine.classify._contest import Entry
    from kogata.engine.classify._task import Size

FOLDS = 4
MANY_ROWS = 4000
"""With more training rows than this, methods that train the encoder are judged on one fold."""
SHORTENED = 0.4
"""A training is still worth it with this share of the time it would like."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Which methods take part, and why the others do not."""

    entries: list[Entry]
    left_out: dict[str, str]

    @property
    def said(self) -> str:
        """Says so in a line."""
        tried = ", ".join(f"{entry.name} (about {format_seconds(entry.seconds)})" for entry in self.entries)
        return f"tries {tried}" + "".join(f"; not {name}: {why}" for name, why in self.left_out.items())

    def cost(self, size: Size, machine: Machine, folds: int | None, most_seconds: float | None) -> Cost:
        """Adds up the trainings that judge the methods, and that of the one kept; of it no peak, no size.

        Args:
            size: of the task.
            machine: its rates.
            folds: how many judge; None where held-out rows do.
            most_seconds: what the clock allows; None without one.
        """
        from kogata.engine.costs import TORCH_BYTES

        efforts = [entry.module.forecast(entry.settings, size, machine) for entry in self.entries]
        rounds = [
            1.0 if folds is None else min(entry.folds, folds) * (1 - 1 / folds) for entry in self.entries
        ]
        likeliest = max(range(len(efforts)), key=lambda at: efforts[at].seconds)
        if folds is not None:
            rounds[likeliest] += 1
        seconds = sum(r * e.seconds for r, e in zip(rounds, efforts, strict=True))
        return Cost(
            seconds=seconds if most_seconds is None else min(seconds, most_seconds),
            tokens=round(sum(r * e.tokens for r, e in zip(rounds, efforts, strict=True))),
            flops=sum(r * e.flops for r, e in zip(rounds, efforts, strict=True)),
            peak_bytes=TORCH_BYTES + max(effort.bytes for effort in efforts),
        )


def candidates(
    folder: str,
    baselines: Sequence[str],
    method: Any,
    size: Size,
    machine: Machine,
    *,
    encoder: bool,
    folds: int | None,
    seconds: float | None,
    where: str,
) -> Candidates:
    """Chooses who takes part.

    Args:
        folder: of the methods.
        baselines: those that always do, where they can.
        method: `auto`, or the choice of one, which takes part whatever the others do.
        size: of the task.
        machine: its rates.
        encoder: whether there is one.
        folds: how many judge; None where held-out rows do.
        seconds: that all may take; None without a clock.
        where: names the stage in messages.

    Raises:
        RecipeError: the named method needs an encoder, and none is given.
    """
    from kogata.engine.classify._contest import Entry

    asked = None if method == "auto" else method.name
    entries: list[Entry] = []
    left_out: dict[str, str] = {}
    left = None if seconds is None else 0.85 * seconds - 5
    for name in sorted(registry.variant_names(folder), key=lambda n: (n not in baselines, n)):
        module = registry.variant(folder, name)
        if asked is not None and name not in (asked, *baselines):
            continue
        if module.NEEDS_ENCODER and not encoder:
            if name == asked:
                raise RecipeError(
                    f"the method {name} needs a text encoder",
                    where=f"{where}, slot model",
                    found="no model",
                    expected="a model.read before it, for example {name: minilm}",
                    remedy=f"add one, or take `method: {baselines[0]}`, which needs none",
                )
            left_out[name] = "no encoder is given"
            continue
        settings = method.settings if method != "auto" and name == asked else module.Settings()
        why = module.suits(size) if asked is None else None
        if why is not None:
            left_out[name] = why
            continue
        effort = module.forecast(settings, size, machine)
        dear = name not in baselines
        judged = 1 if dear and size.rows > MANY_ROWS else FOLDS
        if left is not None:
            judged, why = _within(left, effort.seconds, folds and judged, must=name == asked or not dear)
            if why is not None:
                left_out[name] = why
                continue
            rounds = 1.0 if folds is None else judged * (1 - 1 / folds) + dear
            left = max(0.0, left - rounds * effort.seconds)
        entries.append(
            Entry(name=name, module=module, settings=settings, seconds=effort.seconds, folds=judged)
        )
    return Candidates(entries=entries, left_out=left_out)


def _within(left: float, seconds: float, folds: int | None, *, must: bool) -> tuple[int, str | None]:
    """Chooses on how many folds a method is judged in the time left; says why where it cannot be at all."""
    if folds is None:
        fits = SHORTENED * seconds <= left
        return 1, None if fits or must else _too_long(seconds, left)
    for count in (4, 2, 1):
        if count <= folds and (count * (1 - 1 / FOLDS) + 1) * seconds <= left:
            return count, None
    fits = SHORTENED * 2 * seconds <= left
    return 1, None if fits or must else _too_long(2 * seconds, left)


def _too_long(seconds: float, left: float) -> str:
    return f"would take about {format_seconds(seconds)} of the {format_seconds(left)} left"
