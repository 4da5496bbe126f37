"""Trains one factor for each key, each value and each inner unit of the feed-forward parts.

Pays when: rows are few, or many small adapters are kept: a hundredth of what `lora` trains.
Hurts when: much is to be learned: `lora` reaches a lower loss in the same time.
Cost: about the time of `lora`; an adapter of some ten thousand weights.
Source: (IA)³ (Liu et al. 2022, arXiv 2205.05638): better than in-context examples at a fraction of the cost.
Measured here: not yet measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogata.engine.finetune._common import (
    Target,
    Tuning,
    UpperLayers,
    Work,
    refuse_left,
    refuse_modules,
    targets,
    unfit,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "IA3"
OUTPUTS, INPUTS = ("k_proj", "v_proj"), ("down_proj",)
"""Layers whose outputs are scaled, and whose inputs are, by transformers' names."""


class Settings(UpperLayers):
    """What is trained."""


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = settings.lowest(spec, "ia3")
    count = (spec.layers - first) * (2 * spec.kv_width + spec.ffn_width)
    kept = spec.q_width + 2 * spec.kv_width + spec.ffn_width
    return Work(trained=count, added=count, first=first, rank_floats=kept)


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits."""
    return True


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return 5e-3, "the usual rate of factors that start at one"


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Puts factors of one into the layers and freezes everything else."""
    from kogata.nn.adapters.scaled import Scaled

    first = settings.first(decoder.spec.layers)
    decoder.requires_grad_(False)
    made: list[tuple[Target, Scaled]] = []
    for target in list(targets(decoder)):
        outputs = [rows for peer, rows in target.pieces.items() if peer.endswith(OUTPUTS)]
        if target.layer < first or not (outputs or _scales_inputs(target)):
            continue
        module = Scaled(target.module, outputs or None)
        target.put(module)
        made.append((target, module))

    def save(folder: Path, base: str | None) -> None:
        _save(made, settings, folder, base)

    named = [(f"{target.path}.factors", module.factors) for target, module in made]
    return Tuning(groups=[(named, 1.0)], first=first, save=save)


def _scales_inputs(target: Target) -> bool:
    return all(peer.endswith(INPUTS) for peer in target.pieces)


def _save(made: list[tuple[Target, Any]], settings: Settings, folder: Path, base: str | None) -> None:
    from kogata.engine.adapters import write_adapter

    tensors: dict[str, Any] = {}
    names: list[str] = []
    for target, module in made:
        at = 0
        for peer, (start, stop) in target.pieces.items():
            if not peer.endswith((*OUTPUTS, *INPUTS)):
                continue
            names.append(peer)
            size = module.in_features if module.pieces is None else stop - start
            factors = module.factors.detach()[at : at + size]
            at += size
            shape = factors[None] if module.pieces is None else factors[:, None]
            tensors[f"base_model.model.{peer}.ia3_l"] = shape
    inputs = list(INPUTS)
    if settings.top == "all":
        names = [*OUTPUTS, *INPUTS]
    else:
        names = [name.removeprefix("model.") for name in names]
        inputs = [name for name in names if name.endswith(INPUTS)]
    config = {
        "target_modules": names,
        "feedforward_modules": inputs,
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
    }
    write_adapter(folder, PEFT_TYPE, base, config, tensors)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, into the decoder's layers.

    Raises:
        DataError: it changes what cannot be changed here, or does not fit the model.
    """
    import torch

    from kogata.nn.adapters.scaled import Scaled

    refuse_modules(config, where, "factors")
    given = config.get("feedforward_modules") or []
    inner = tuple([given] if isinstance(given, str) else given)
    left = dict(tensors)
    for target in list(targets(decoder)):
        found = {peer: left.pop(f"base_model.model.{peer}.ia3_l", None) for peer in target.pieces}
        found = {peer: factors.float().flatten() for peer, factors in found.items() if factors is not None}
        if not found:
            continue
        inputs = [peer for peer in found if inner and peer.endswith(inner)]
        pieces = None if inputs else [target.pieces[peer] for peer in found]
        module = Scaled(target.module, pieces)
        factors = torch.cat(list(found.values()))
        if factors.shape != module.factors.shape or (inputs and len(target.pieces) > 1):
            raise unfit(
                where=f"{where}: {', '.join(found)}",
                found=f"{len(factors)} factors",
                expected=f"{len(module.factors)}, of all inputs or of some pieces' outputs",
            )
        module.factors.data = factors
        target.put(module)
    refuse_left(left, where)
