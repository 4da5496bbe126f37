"""What fine-tuning does to fit the memory, and what that costs. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from kogata.core.amounts import format_bytes
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.variants import Choice
from kogata.engine import finetune_costs as costs
from kogata.engine.finetune._common import Work
from kogata.nn.spec import ModelSpec


class Asked(Protocol):
    """The settings that decide the form."""

    method: Choice
    hold: Literal["auto"] | costs.Hold
    recompute: Literal["auto"] | bool
    merge: bool


def plan_form(
    asked: Any,
    spec: ModelSpec,
    work: Work,
    rows: costs.Rowful,
    machine: Machine,
    *,
    batch: int,
    room: int | None,
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

    Raises:
        RecipeError: weights that are trained or merged are to be held in fewer bits.
    """
    settings: Asked = asked
    narrow = getattr(settings.method.variant, "narrow", lambda _: False)(settings.method.settings)
    narrow = narrow and not settings.merge and machine.device == "cpu"
    if settings.hold not in ("auto", "fp32") and not narrow:
        raise RecipeError(
            "weights that are trained or merged cannot be held in fewer bits",
            where="hold of train.finetune",
            found=f"hold: {settings.hold} with method {settings.method.name}, merge: {settings.merge}",
            expected="hold: fp32, or an adapter without PiSSA that is not merged, on a processor",
        )
    again = [False, True] if settings.recompute == "auto" else [settings.recompute]
    holds: list[costs.Hold] = ["fp32", "bf16"] if narrow else ["fp32"]
    if settings.hold != "auto":
        holds = [settings.hold]
    may = [costs.Form(hold=hold, recompute=one) for one in again for hold in holds]
    if room is None:
        return may[0], "no memory budget binds"
    if settings.hold == "auto" and narrow and again[-1]:
        may.append(costs.SMALLEST)
    form, price = costs.choose_form(spec, work, rows, machine, batch=batch, room=room, may=may)
    if form == costs.PLAIN:
        return form, "the memory allows it"
    return form, f"to fit {format_bytes(room)}; steps take {100 * (price - 1):.0f} % longer"
