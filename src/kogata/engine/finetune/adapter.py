"""Trains narrow parts of two small matrices between the frozen ones: behind each part of a block, or beside.

They are no change of weights, so they cannot be merged into the model: `evaluate`, `kogata chat` and Python
use model and adapter together, `export` hands on the adapter alone. peft has no such part; the folder holds
Kogata's own form (docs/finetune.md), which peft refuses.

Pays when: many tasks are kept for one model, and what is to be learned is not linear in what a layer reads.
Hurts when: the result is to run elsewhere, or quickly: nothing but Kogata reads it, and each token passes
    through the added parts. `lora` mostly reaches the same and merges.
Cost: about the time of `lora`; 16 bytes for each of the few weights that are trained.
Source: behind: Houlsby et al. 2019 (arXiv 1902.00751); beside the feed-forward part, scaled by 4: He et al.
    2022 (arXiv 2110.04366).
Measured here: not yet measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kogata.core.errors import DataError
from kogata.engine.finetune._common import (
    Target,
    Tuning,
    UpperLayers,
    Work,
    lora_lr,
    refuse_left,
    targets,
    unfit,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "KOGATA_BOTTLENECK"
MERGES = False
LEAVES = ("down", "down_bias", "up", "up_bias")


class Settings(UpperLayers):
    """What is added."""

    form: Literal["behind", "beside"] = Field(
        default="behind",
        description="behind: after attention and after the feed-forward part; beside: parallel to the latter",
    )
    size: int = Field(default=64, ge=1, le=4096, description="width of the narrow part")
    scale: float | None = Field(
        default=None, gt=0, description="factor of what is added; by default 1 behind and 4 beside"
    )

    @property
    def factor(self) -> float:
        """The factor on what is added."""
        return self.scale or (1.0 if self.form == "behind" else 4.0)


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = settings.lowest(spec, "adapter")
    count = (spec.layers - first) * (2 if settings.form == "behind" else 1)
    matrices = count * 2 * settings.size * spec.width
    kept = count * (spec.width + settings.size) // (spec.layers - first)
    return Work(
        trained=matrices + count * (settings.size + spec.width), added=matrices, first=first, rank_floats=kept
    )


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits."""
    return True


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return lora_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Puts narrow parts into the layers and freezes everything else."""
    import torch

    first = settings.first(decoder.spec.layers)
    generator = torch.Generator().manual_seed(seed)
    decoder.requires_grad_(False)
    made = _put(decoder, first, settings.form, settings.size, settings.factor)
    for _, part in made:
        part.begin(generator)
    named = [(f"{stem}.{leaf}", getattr(part, leaf)) for stem, part in made for leaf in LEAVES]

    def save(folder: Path, base: str | None) -> None:
        from kogata.engine.adapters import write_adapter

        config = {
            "form": settings.form,
            "size": settings.size,
            "scale": settings.factor,
            "activation": "relu",
            "first_layer": first,
        }
        write_adapter(folder, PEFT_TYPE, base, config, {name: weight.detach() for name, weight in named})

    return Tuning(groups=[(named, 1.0)], first=first, save=save)


def _put(decoder: Any, first: int, form: str, size: int, scale: float) -> list[tuple[str, Any]]:
    """Puts parts without effect into the layers from `first` on; gives them by transformers' names."""
    from kogata.nn.adapters.bottleneck import Behind, Beside, Bottleneck, Entry

    made: list[tuple[str, Bottleneck]] = []
    entry: Entry | None = None

    def add(target: Target, part: str) -> Bottleneck:
        bottleneck = Bottleneck(decoder.spec.width, size, scale).to(target.module.weight.device)
        made.append((f"layers.{target.layer}.{part}.adapter", bottleneck))
        return bottleneck

    for target in [target for target in targets(decoder) if target.layer >= first]:
        if form == "behind" and target.name in ("out", "down"):
            part = "self_attn" if target.name == "out" else "mlp"
            target.put(Behind(target.module, add(target, part)))
        elif form == "beside" and target.name in ("gate_up", "up"):
            entry = Entry(target.module)
            target.put(entry)
        elif form == "beside" and target.name == "down":
            assert entry is not None
            target.put(Beside(target.module, add(target, "mlp"), entry))
    return made


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter into the decoder's layers.

    Raises:
        DataError: it is of a form unknown here, or does not fit the model.
    """
    form, first = config.get("form"), int(config.get("first_layer") or 0)
    if form not in ("behind", "beside") or config.get("activation") != "relu":
        raise DataError(
            "the adapter holds what cannot be read here",
            where=where,
            found=f"form {form}, activation {config.get('activation')}",
            expected="form behind or beside, activation relu",
        )
    left = dict(tensors)
    made = _put(decoder, first, form, int(config.get("size") or 0), float(config.get("scale") or 1.0))
    for stem, part in made:
        for leaf in LEAVES:
            value, own = left.pop(f"{stem}.{leaf}", None), getattr(part, leaf)
            if value is None or value.shape != own.shape:
                raise unfit(
                    where=f"{where}: {stem}.{leaf}",
                    found="no such tensor" if value is None else str(list(value.shape)),
                    expected=str(list(own.shape)),
                )
            own.data = value.float()
    refuse_left(left, where)
