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

from pydantic import Field

from kogata.core.errors import DataError
from kogata.core.variants import VariantSettings
from kogata.engine.finetune._common import (
    Target,
    Top,
    Tuning,
    Work,
    first_layer,
    refuse_family,
    refuse_layers,
    refuse_left,
    targets,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "IA3"
OUTPUTS, INPUTS = ("k_proj", "v_proj"), ("down_proj",)
"""Layers whose outputs are scaled, and whose inputs are, by transformers' names."""


class Settings(VariantSettings):
    """What is trained."""

    top: Top = Field(
        default="all",
        description="so many upper layers, or third; those below are computed once for all epochs; auto: "
        "third where a short trial comes within 2 % of the held-out loss of all, else all",
    )


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    refuse_family(spec, "ia3")
    if isinstance(settings.top, int):
        refuse_layers(settings.top, spec, "method.ia3.top")
    first = first_layer(settings.top, spec.layers)
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

    first = first_layer(settings.top, decoder.spec.layers)
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
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
        "peft_type": PEFT_TYPE,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "target_modules": names,
        "feedforward_modules": inputs,
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
        "inference_mode": True,
    }
    write_adapter(folder, config, tensors)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, into the decoder's layers.

    Raises:
        DataError: it changes what cannot be changed here, or does not fit the model.
    """
    import torch

    from kogata.nn.adapters.scaled import Scaled

    if config.get("modules_to_save"):
        raise DataError(
            "the adapter holds what cannot be read here",
            where=f"{where}: modules_to_save",
            found="whole modules beside the factors",
            expected="factors of the blocks' linear layers alone",
            remedy="merge it with peft and read the merged model",
        )
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
            raise DataError(
                "the adapter is for another model",
                where=f"{where}: {', '.join(found)}",
                found=f"{len(factors)} factors",
                expected=f"{len(module.factors)}, of all inputs or of some pieces' outputs",
                remedy="read the model that it was trained on",
            )
        module.factors.data = factors
        target.put(module)
    refuse_left(left, where)
