"""Chooses the shape of a model made from scratch, from what was asked, the time and the text.

Imports no torch: plans use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kogata.core.amounts import format_count, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.shape import ModelShape
from kogata.core.stage import Facts, Share
from kogata.engine import autosize
from kogata.engine.autosize import Shape
from kogata.engine.costs import micro_tokens, peak_bytes
from kogata.nn.families import FAMILY
from kogata.nn.spec import ModelSpec


def refuses_recompute(spec: ModelSpec) -> str | None:
    """Says what of a model keeps its blocks from being computed again; None: nothing."""
    if spec.sharing is not None:
        return "layers with weights in common"
    if spec.ffn == "experts":
        return "feed-forward parts of experts, which count their tokens"
    return "a layer that reuses another's keys" if "reuse" in (spec.mixers or ()) else None


def recompute_for(
    spec: ModelSpec,
    asked: bool | str,
    batch: int,
    context: int,
    share: Share,
    room: int | None,
    optimizer: str,
) -> tuple[bool, str]:
    """Says whether the backward pass computes blocks again: where training fits its memory only so.

    Args:
        spec: the model.
        asked: the setting.
        batch: tokens of a step.
        context: tokens of a window.
        share: of the stage.
        room: bytes for activations of one process.
        optimizer: the setting.

    Raises:
        RecipeError: it was asked for, and such blocks cannot be computed again.
    """
    why_not = refuses_recompute(spec)
    if asked is True and why_not:
        raise RecipeError(
            "these blocks cannot be computed again",
            where="train.pretrain.recompute",
            found=why_not,
            expected="recompute: false",
        )
    if asked != "auto":
        return bool(asked), ""

    memory = share.memory_bytes

    def fits(recompute: bool) -> bool:
        micro = micro_tokens(spec, batch, context, room, recompute)
        sizes = {"micro": micro, "muon": optimizer != "adamw", "processes": share.processes}
        return memory is None or peak_bytes(spec, **sizes, recompute=recompute) <= memory

    if not fits(False) and not why_not and fits(True):
        return True, "activations fit the memory only where blocks are computed again, a third more products"
    return False, ""


def refuse_shard(
    spec: ModelSpec,
    optimizer: str,
    batch: int,
    context: int,
    recompute: bool,
    techniques: Mapping[str, object],
    share: Share,
) -> None:
    """Refuses what does not go with weights divided over processes.

    Raises:
        RecipeError: naming it.
    """
    rows = max(1, batch // context)
    found = expected = ""
    if optimizer != "adamw":
        found, expected = f"optimizer {optimizer}", "optimizer: adamw; Muon needs whole matrices"
    elif techniques:
        found, expected = f"techniques {', '.join(techniques)}", "no techniques"
    elif recompute:
        found, expected = "recompute", "recompute: false"
    elif spec.sharing is not None:
        found, expected = "layers with weights in common", "layers of their own"
    elif rows % share.processes:
        found, expected = f"{rows} windows a step", f"as many for each of the {share.processes} processes"
    if found:
        raise RecipeError(
            "weights cannot be divided so", where="train.pretrain.shard", found=found, expected=expected
        )


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


def model_facts(spec: ModelSpec, tokens: Facts) -> dict[str, Any]:
    """Gives the facts of a model trained on tokens with these facts, but for its training."""
    return {
        "spec": spec.to_dict(),
        "architecture": spec.family,
        "parameters": spec.parameters(),
        "vocab_size": spec.vocab_size,
        "context": spec.context,
        "tokenizer_digest": tokens.get("tokenizer_digest"),
        "end_id": tokens.get("end_id"),
    }


def given_spec(facts: Mapping[str, Facts | None]) -> ModelSpec | None:
    """Gives the shape of a model to train on; None where one is made.

    Raises:
        RecipeError: the model is none of ours.
    """
    model = facts.get("model")
    if model is None:
        return None
    if not model.get("spec"):
        raise RecipeError(
            "this model cannot be trained on here",
            where="train.pretrain, slot model",
            found=f"architecture {model.get('architecture')}",
            expected=f"one of the families {', '.join(FAMILY)}",
            remedy="use train.finetune, which runs other architectures through transformers",
        )
    return ModelSpec.from_dict(dict(model["spec"]))
