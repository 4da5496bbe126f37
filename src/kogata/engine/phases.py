"""What a pretraining takes: what comes before its steps, and these phase by phase. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kogata.core.receipt import Machine
from kogata.core.stage import Facts
from kogata.engine import costs, techniques
from kogata.engine.curriculum import measuring_seconds
from kogata.nn.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps, and what they take."""

    steps: int
    tokens: float
    seconds: float
    flops: float


def rounds_for(spec: ModelSpec, train: Facts, machine: Machine, seconds: float | None) -> int:
    """Chooses the rounds of a start from the corpus.

    Args:
        spec: the model.
        train: facts of the training text.
        machine: its rates.
        seconds: of the whole training; None where steps end it.
    """
    return costs.rounds_for(*_start_sizes(spec, train, machine), seconds)


def _start_sizes(spec: ModelSpec, train: Facts, machine: Machine) -> tuple[int, int, int, Machine]:
    """Gives what the time of a start from the corpus depends on."""
    return spec.vocab_size, spec.embed_width or spec.width, train["tokens"], machine


def seconds_before(
    chosen: Mapping[str, Any],
    spec: ModelSpec,
    machine: Machine,
    train: Facts,
    *,
    rounds: int | None,
    look_back: int,
    curriculum: Any,
) -> float:
    """Forecasts the seconds before the first step.

    Args:
        chosen: techniques by name, with their settings.
        spec: the model.
        machine: its rates.
        train: facts of the training text.
        rounds: of the start from the corpus; None: there is none.
        look_back: heads that begin by looking back.
        curriculum: as chosen; may measure the text.
    """
    before = machine.paced(costs.STAGE_SECONDS) + measuring_seconds(curriculum, train["tokens"])
    before += techniques.seconds_before(chosen, train["tokens"], machine)
    if rounds is None:
        return before
    before += costs.corpus_start_seconds(*_start_sizes(spec, train, machine), rounds)
    return before + (costs.look_back_seconds(spec, train["tokens"], machine, look_back) if look_back else 0.0)


def steps_of(phases: list[tuple[float, float]], steps: int) -> list[int]:
    """Counts the steps of each phase; a step belongs to the phase that its share of training done lies in."""
    bounds, end = [0], 0.0
    for share, _ in phases[:-1]:
        end += share
        first = max(0, int(end * steps) - 1)
        while first < steps and first / steps < end - 1e-12:
            first += 1
        bounds.append(first)
    return [stop - start for start, stop in zip(bounds, [*bounds[1:], steps], strict=True)]


def steps_cost(
    chosen: Mapping[str, Any],
    spec: ModelSpec,
    machine: Machine,
    *,
    batch: int,
    context: int,
    micro: int,
    steps: int | None,
    seconds: float | None,
    slower: float,
    **parts: Any,
) -> Steps:
    """Forecasts all steps, or as many as fit the time.

    Args:
        chosen: techniques by name, with their settings.
        spec: the model.
        machine: its rates.
        batch: tokens of a step, before techniques change it.
        context: tokens of a window.
        micro: tokens of a forward pass at most.
        steps: how many; None where the time says.
        seconds: that steps may take; None where they are counted.
        slower: what the time of a step is multiplied by.
        parts: see `costs.step_cost`.
    """
    phases = techniques.phases(chosen)
    slower *= techniques.cost_of(chosen, spec)
    work = techniques.work_of(chosen, spec, context)
    sizes = [round(batch * times) for _, times in phases]
    each = [
        costs.step_cost(spec, machine, batch=size, context=context, micro=min(micro, size), **parts)
        for size in sizes
    ]
    if steps is None:
        assert seconds is not None
        # Shares are of the time here: what a step of each phase takes says how many there are.
        whole = sum(share / one.seconds for (share, _), one in zip(phases, each, strict=True))
        steps = max(1, int(seconds * whole / slower))
        parted = [share / one.seconds / whole for (share, _), one in zip(phases, each, strict=True)]
        counts = steps_of([(part, 1.0) for part in parted], steps)
    else:
        counts = steps_of(phases, steps)
    return Steps(
        steps=steps,
        tokens=sum(count * size for count, size in zip(counts, sizes, strict=True)),
        seconds=slower * sum(count * one.seconds for count, one in zip(counts, each, strict=True)),
        flops=work * sum(count * one.flops for count, one in zip(counts, each, strict=True)),
    )
