"""What fine-tuning does to fit the memory and tries before it starts, and the price. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kogata.core.amounts import format_bytes, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.variants import Choice
from kogata.engine import finetune_costs as costs
from kogata.engine.finetune._common import Work
from kogata.engine.finetune._foreign import refuse_layers_of
from kogata.engine.foreign_shape import layered
from kogata.nn.spec import ModelSpec


class Asked(Protocol):
    """The settings that decide the form."""

    method: Choice
    hold: Literal["auto"] | costs.Hold
    recompute: Literal["auto"] | bool
    merge: bool


BATCH, LEAST_BATCH = 8, 2
ENOUGH_STEPS = 350
"""Steps below which smaller ones teach an adapter more than they cost."""
ADAPTER_SHARE = 0.1
"""Of the weights, from which on a step of the optimiser costs too much for small batches."""


def plan_batch(spec: ModelSpec, work: Work, rows_seen: float) -> tuple[int, str]:
    """Chooses the rows of a step, and says why.

    Args:
        spec: the model.
        work: the method's.
        rows_seen: rows of the whole run, those seen again included; 0: not known.
    """
    if not rows_seen:
        return BATCH, f"{BATCH} rows a step suit few and many rows"
    if work.trained > ADAPTER_SHARE * spec.parameters():
        return BATCH, f"{BATCH} rows a step: moving so many weights costs too much for smaller ones"
    batch = BATCH
    while batch > LEAST_BATCH and rows_seen / batch < ENOUGH_STEPS:
        batch //= 2
    return batch, f"{batch} rows a step: {rows_seen:,.0f} rows then give {rows_seen / batch:,.0f} steps"


def plan_form(
    asked: Any,
    spec: ModelSpec,
    work: Work,
    rows: costs.Rowful,
    machine: Machine,
    *,
    batch: int,
    room: int | None,
    foreign: dict[str, Any] | None = None,
    precision: str = "fp32",
) -> tuple[costs.Form, str]:
    """Chooses what is done to fit the memory, and says what it costs.

    Args:
        asked: the stage's settings, see `Asked`.
        spec: the model.
        work: the method's.
        rows: guessed.
        machine: for the times.
        batch: rows of a step.
        room: bytes of one process; None: no budget.
        foreign: what is known of a model that runs in transformers' module.
        precision: of the products.

    Raises:
        RecipeError: weights that are trained or merged are to be held in fewer bits, or those of a model
            whose layers are not understood.
    """
    settings: Asked = asked
    narrow = getattr(settings.method.variant, "narrow", lambda _: False)(settings.method.settings)
    narrow = narrow and not settings.merge and machine.device == "cpu"
    known = foreign is None or layered(foreign)
    if foreign is not None:
        asked = [f"{name}: {getattr(settings, name)}" for name in ("hold", "recompute")]
        if settings.hold not in ("auto", "fp32") or settings.recompute is True:
            refuse_layers_of(foreign, ", ".join(asked))
        # DoRA begins with the lengths of the weights as they are.
        narrow = narrow and known and not getattr(settings.method.settings, "dora", False)
    if settings.hold not in ("auto", "fp32") and not narrow:
        raise RecipeError(
            "weights that are trained or merged cannot be held in fewer bits",
            where="hold of train.finetune",
            found=f"hold: {settings.hold} with method {settings.method.name}, merge: {settings.merge}",
            expected="hold: fp32, or an adapter without PiSSA that is not merged, on a processor; of a model "
            "that only transformers can build, lora without DoRA",
        )
    again = [False, True] if settings.recompute == "auto" else [settings.recompute]
    again = again if known else [False]
    holds: list[costs.Hold] = ["fp32", "bf16"] if narrow else ["fp32"]
    half = narrow and foreign is None and precision == "bf16"
    if half:
        holds = ["bf16"]
    if settings.hold != "auto":
        holds = [settings.hold]
    may = [costs.Form(hold=hold, recompute=one) for one in again for hold in holds]
    as_used = "frozen weights are held as they are multiplied, in 16 bits"
    if room is None:
        return may[0], as_used if half and may[0] == costs.HALF else "no memory budget binds"
    if settings.hold == "auto" and narrow and again[-1]:
        may += [costs.SMALLEST, costs.STREAMED]
    form, price = costs.choose_form(
        spec, work, rows, machine, batch=batch, room=room, may=may, precision=precision
    )
    if form == costs.PLAIN:
        return form, "the memory allows it"
    if half and form == costs.HALF:
        return form, as_used
    return form, f"to fit {format_bytes(room)}; steps take {100 * (price - 1):.0f} % longer"


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What is tried before a run: steps of each way (0: nothing is), and the seconds of all."""

    rates: int
    rate_seconds: float
    layers: int
    layer_seconds: float

    @property
    def steps(self) -> int:
        """Steps of all trials."""
        return len(costs.PROBE_FACTORS) * self.rates + 2 * self.layers

    def said_of_layers(self) -> str:
        """Says how the layers are chosen."""
        if not self.layers:
            return "all layers: no rows held out or seen twice, or too short a run for trials to pay"
        said = f"{self.layers} steps with the top third of the layers and with all decide"
        return f"{said}: {format_seconds(self.layer_seconds)}; the plan is for all"

    def said_of_rates(self, usual: float, reason: str) -> str:
        """Says how the learning rate is chosen."""
        if not self.rates:
            return f"{reason}; the run is too short for trials of others to pay"
        rates = ", ".join(f"{rate:g}" for rate in costs.probe_rates(usual))
        return f"the best of {rates}, each tried for {self.rates} steps: {format_seconds(self.rate_seconds)}"


def plan_trials(
    spec: ModelSpec,
    rows: costs.Rowful,
    planned: float,
    batch: int,
    seconds: float,
    *,
    rates: bool,
    layers: bool,
) -> TrialPlan:
    """Plans trials of learning rates and of layers.

    Args:
        spec: the model.
        rows: guessed.
        planned: steps of the run.
        batch: rows of a step.
        seconds: of a step.
        rates: whether learning rates may be tried.
        layers: whether layers may be tried.
    """
    ways = len(costs.PROBE_FACTORS)
    each = costs.trial_steps(planned, rows.rows, batch, ways) if rates else 0
    both = costs.layer_steps(planned, rows.rows, batch) if layers else 0
    loads = 2 * costs.load_seconds(spec) if both else 0.0
    return TrialPlan(
        rates=each,
        rate_seconds=ways * each * seconds,
        layers=both,
        layer_seconds=2 * both * seconds + loads,
    )
