"""Trains a change of low rank beside each linear layer; the model's own weights stay as they are.

Pays when: rows are hundreds to tens of thousands: as good as training every weight, in less time and memory.
Hurts when: much new knowledge is to be learned: the rank then holds it back.
Cost: two thirds of the products of full fine-tuning; 16 bytes for each of the few weights that are trained.
Source: LoRA (arXiv 2106.09685); all linear layers, rate nearly independent of the rank: Schulman et al. 2025
    (LoRA Without Regret); rsLoRA (arXiv 2312.03732); DoRA (arXiv 2402.09353); LoRA+ (arXiv 2402.12354);
    PiSSA (arXiv 2404.02948). Variants tie once the rate is tuned (arXiv 2602.04998).
Measured here: SmolLM2-135M, GSM8K rows, rank 16, float32, beside TRL with peft: 2.71
[finetune.json:lora.speed_over_plain:.2f] times its tokens a second as it comes, 1.74
[finetune.json:lora.speed_over_best:.2f] times its best of three settings, in 0.22
[finetune.json:lora.memory_share_of_plain:.2f] of its memory, the losses of all steps within 0.003
[finetune.json:lora.curve_gap:.3f]. With products in 16 bits, as both come: 4.23
[finetune.json:bf16.lora.speed_over_best:.2f] times its best, autocast included.
In float32, three epochs of the top third of the layers: 4.9
[finetune.json:top.whole_over_plain:.1f] times, from the second on 5.8
[finetune.json:top.later_over_plain:.1f] times, the held-out loss 1.14
[finetune.json:top.loss_ratio:.2f] times that of all layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kogata.core.errors import DataError, RecipeError
from kogata.core.registry import suggest
from kogata.engine.finetune._common import (
    Target,
    Tuning,
    UpperLayers,
    Work,
    layer_shapes,
    lora_lr,
    refuse_left,
    targets,
    unfit,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "LORA"
FOREIGN = True
"""Whether it trains models that only transformers can build: peft puts the change into their modules."""


class Settings(UpperLayers):
    """What decides the change."""

    rank: int = Field(
        default=16, ge=1, le=1024, description="rank of each change: 8 for few rows, more for many"
    )
    alpha: float | None = Field(
        default=None, gt=0, description="the change counts alpha / rank times; by default twice the rank"
    )
    rslora: bool = Field(
        default=False, description="the change counts alpha / √rank times: large ranks then learn as fast"
    )
    dora: bool = Field(
        default=False, description="train the length of each output's weights apart from their direction"
    )
    b_ratio: float = Field(
        default=1.0, ge=1, le=64, description="LoRA+: how many times A's learning rate B has; 16 is usual"
    )
    init: Literal["uniform", "pissa"] = Field(
        default="uniform",
        description="how A and B start: without effect, or as the weight's largest parts",
    )
    layers: list[str] | None = Field(
        default=None,
        description="linear layers by transformers' names, such as q_proj; default: all",
    )

    @property
    def scale(self) -> float:
        """The factor on each change."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)


def _chosen(spec: ModelSpec, settings: Settings) -> dict[str, tuple[int, int]]:
    shapes = layer_shapes(spec)
    for name in settings.layers or ():
        if name not in shapes:
            near = suggest(name, shapes)
            raise RecipeError(
                f"the model has no linear layer {name!r}",
                where="method.lora.layers",
                expected=f"some of {', '.join(shapes)}",
                remedy=f"did you mean {near!r}?" if near else None,
            )
    return {name: shapes[name] for name in settings.layers or shapes}


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = settings.lowest(spec, "lora")
    shapes = _chosen(spec, settings).values()
    each = sum(settings.rank * (rows + columns) + (rows if settings.dora else 0) for rows, columns in shapes)
    count = (spec.layers - first) * each
    return Work(trained=count, added=count, first=first, rank_floats=len(shapes) * settings.rank)


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits: PiSSA changes them."""
    return settings.init != "pissa"


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return lora_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Puts a low-rank change beside each linear layer and freezes everything else."""
    import torch

    from kogata.nn.adapters.lora import LowRank

    spec = decoder.spec
    if spec is None:
        return _in_peft(decoder, settings, seed)
    names, first = set(_chosen(spec, settings)), settings.first(spec.layers)
    generator = torch.Generator().manual_seed(seed)
    decoder.requires_grad_(False)
    made: list[tuple[Target, LowRank]] = []
    for target in list(targets(decoder)):
        pieces = [rows for peer, rows in target.pieces.items() if peer.rsplit(".", 1)[1] in names]
        if target.layer < first or not pieces:
            continue
        changed = LowRank(target.module, pieces, settings.rank, settings.scale, settings.dora)
        changed.begin(generator, settings.init)
        target.put(changed)
        made.append((target, changed))
    a = [(f"{target.path}.a", module.a) for target, module in made]
    b = [(f"{target.path}.b", module.b) for target, module in made]
    b += [(f"{target.path}.length", module.length) for target, module in made if module.length is not None]
    groups = [(a, 1.0), (b, settings.b_ratio)] if settings.b_ratio != 1 else [(a + b, 1.0)]

    def save(folder: Path, base: str | None) -> None:
        _save(made, settings, folder, base)

    return Tuning(groups=groups, first=first, save=save)


def _in_peft(decoder: Any, settings: Settings, seed: int) -> Tuning:
    from kogata.engine.finetune import peft

    first = settings.first(len(decoder.layers)) if settings.top != "all" else 0
    config = {
        "peft_type": PEFT_TYPE,
        "r": settings.rank,
        "lora_alpha": settings.scale * (settings.rank**0.5 if settings.rslora else settings.rank),
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
        "target_modules": decoder.layers.linear(first) if first else "all-linear",
    }
    model = peft.put(decoder, config, 0, seed, "method.lora of train.finetune")
    return peft.tuning_of(model, first or -1, settings.b_ratio)


def _save(made: list[tuple[Target, Any]], settings: Settings, folder: Path, base: str | None) -> None:
    """Writes peft's format. PiSSA lessened the base, so its change is saved against the base as it was."""
    import torch

    from kogata.engine.adapters import write_adapter

    tensors: dict[str, Any] = {}
    names: set[str] = set()
    doubled = any(module.start is not None for _, module in made)
    for target, module in made:
        peers = {rows: peer for peer, rows in target.pieces.items()}
        for (i, at, start, stop), (a, b) in zip(module.parts(), module.factors(), strict=True):
            peer = peers[start, stop]
            names.add(peer.rsplit(".", 1)[1])
            if module.start is not None:
                first_a, first_b = module.start
                old = slice(i * module.rank, (i + 1) * module.rank)
                a = torch.cat([a, first_a[old]])
                b = torch.cat([b, -first_b[at : at + stop - start]], 1)
            tensors[f"base_model.model.{peer}.lora_A.weight"] = a.detach()
            tensors[f"base_model.model.{peer}.lora_B.weight"] = b.detach()
            if module.length is not None:
                length = module.length.detach()[at : at + stop - start]
                tensors[f"base_model.model.{peer}.lora_magnitude_vector"] = length
    rank = settings.rank * (2 if doubled else 1)
    alpha = settings.scale * (rank**0.5 if settings.rslora else rank)
    config = {
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(names),
        "layers_to_transform": sorted({target.layer for target, _ in made}) or None,
        "layers_pattern": "layers",
        "bias": "none",
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    write_adapter(folder, PEFT_TYPE, base, config, tensors)


_UNKNOWN = {
    "modules_to_save": "whole modules beside the low-rank changes",
    "rank_pattern": "a rank of its own for some layers",
    "alpha_pattern": "an alpha of its own for some layers",
    "trainable_token_indices": "trained token rows",
    "target_parameters": "changes of bare parameters",
    "lora_bias": "a bias in the changes",
}


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, beside the decoder's layers.

    Raises:
        DataError: it changes what cannot be changed here, or does not fit the model.
    """
    import torch

    from kogata.nn.adapters.lora import LowRank

    for name, what in _UNKNOWN.items():
        if config.get(name):
            raise DataError(
                "the adapter holds what cannot be read here", where=f"{where}: {name}", found=what,
                expected="low-rank changes of the blocks' linear layers alone",
                remedy="merge it with peft and read the merged model",
            )  # fmt: skip
    if config.get("bias", "none") != "none":
        raise DataError(
            "the adapter holds trained biases", where=f"{where}: bias", found=config["bias"], expected="none"
        )
    rank, alpha = int(config.get("r", 8)), float(config.get("lora_alpha", 8))
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    left = dict(tensors)

    def take(peer: str, leaf: str) -> Any:
        for name in (f"base_model.model.{peer}.{leaf}", f"base_model.model.{peer}.{leaf}.weight"):
            if name in left:
                return left.pop(name).float()
        return None

    for target in list(targets(decoder)):
        found = {peer: take(peer, "lora_A") for peer in target.pieces}
        found = {peer: a for peer, a in found.items() if a is not None}
        if not found:
            continue
        pieces = [target.pieces[peer] for peer in found]
        module = LowRank(target.module, pieces, rank, scale, bool(config.get("use_dora")))
        a = torch.cat(list(found.values()))
        left_b = [part for part in (take(peer, "lora_B") for peer in found) if part is not None]
        b = torch.cat(left_b) if left_b else a.new_zeros(0, rank)
        if a.shape != module.a.shape or b.shape != module.b.shape:
            raise unfit(
                where=f"{where}: {', '.join(found)}",
                found=f"A {list(a.shape)}, B {list(b.shape)}",
                expected=f"A {list(module.a.shape)}, B {list(module.b.shape)}",
            )
        module.a.data, module.b.data = a, b
        if module.length is not None:
            lengths = [take(peer, "lora_magnitude_vector") for peer in found]
            if any(part is None for part in lengths):
                raise DataError("the adapter lacks lengths of DoRA", where=f"{where}: {', '.join(found)}")
            module.length.data = torch.cat(lengths)
        target.put(module)
    refuse_left(left, where)
