"""Chooses the shape of a model made from scratch, from what was asked, the time and the text.

Imports no torch: plans use it.
"""

from __future__ import annotations

from collections.abc import Callable

from kogata.core.amounts import format_count, format_seconds
from kogata.core.receipt import Machine
from kogata.core.shape import ModelShape
from kogata.engine import autosize
from kogata.engine.autosize import Shape
from kogata.nn.spec import ModelSpec


def choose(
    asked: ModelShape,
    vocab_size: int,
    context: int,
    batch: int,
    *,
    seconds: float | None,
    steps: int | None,
    machine: Machine,
    tables_every: Callable[[ModelSpec], int],
    precision: str = "fp32",
) -> tuple[Shape, str]:
    """Gives the shape and why; no reason for one that was asked for in full.

    Args:
        asked: the settings.
        vocab_size: of the tokens.
        context: tokens of a window.
        batch: tokens of a step.
        seconds: that training may take; None where steps or nothing ends it.
        steps: that it will take; None where the clock or nothing ends it.
        machine: its rates.
        tables_every: gives the steps between two updates of a shape's head.
        precision: of the products.
    """
    family, tied, extras = asked.family, bool(asked.tied), autosize.Extras.of(asked)
    if asked.layers is not None and asked.width is not None:
        shape = autosize.shape_of(family, asked.layers, asked.width, tied)
        heads = asked.heads or shape.heads
        whole = Shape(
            layers=asked.layers,
            width=asked.width,
            heads=heads,
            kv_heads=asked.kv_heads or heads,
            ffn_width=asked.ffn_width or shape.ffn_width,
            tied=tied,
        )
        return whole, ""
    if asked.parameters != "auto":
        shape = autosize.by_parameters(family, vocab_size, tied, context, asked.parameters, extras)
        return shape, "as asked"
    if seconds is not None or steps is None:
        budget = autosize.DEFAULT_SECONDS if seconds is None else seconds
        sizes, more = (family, vocab_size, tied, context), (extras, tables_every, precision)
        shape, seen = autosize.by_time(*sizes, batch, budget, machine, *more)
        reason = f"sees about {format_count(seen)} tokens in {format_seconds(budget)}"
    else:
        seen = (steps or 1) * batch
        shape = autosize.by_tokens(family, vocab_size, tied, context, seen, extras)
        reason = f"sees {format_count(seen)} tokens"
    said = f"{shape.layers} layers of width {shape.width}, the largest that is well taught: it {reason}"
    return shape, said
