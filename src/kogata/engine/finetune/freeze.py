"""Trains the upper layers' own weights; what lies below stays, and is computed once for all epochs.

Pays when: rows are seen several times and what is to be learned is form more than knowledge: from the second
    epoch on only the upper layers are computed.
Hurts when: the task needs the lower layers: take `lora` or `full` then.
Cost: 20 bytes for each weight of the trained layers; 2 bytes a token and unit of width on disk.
Source: the last quarter of the layers reaches most of full fine-tuning (arXiv 1911.03090); outputs kept as in
    Skip2-LoRA (arXiv 2410.21073).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.finetune._common import (
    Tuning,
    Work,
    first_layer,
    full_lr,
    lowest_layer,
)
from kogata.nn.ffns import ffn_matrices
from kogata.nn.spec import ModelSpec

MAKES = "model"
FOREIGN = True
"""Whether it trains models that only transformers can build."""


class Settings(VariantSettings):
    """What is trained."""

    top: Literal["third"] | int = Field(
        default="third", description="so many upper layers, or third; the last norm is trained with them"
    )


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = lowest_layer(settings.top, spec, "freeze")
    above = spec.layer_sizes()[first:]
    ffn = sum(rows * columns for rows, columns in ffn_matrices(spec))
    norms = (4 if spec.sandwich_norms else 2) * spec.width
    dense = sum(one.matrix_parameters + ffn for one in above)
    vectors = sum(one.vectors + norms for one in above) + spec.width
    return Work(trained=dense + vectors, dense=dense, first=first)


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return full_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Makes the upper layers' weights trained and freezes everything else."""
    decoder.requires_grad_(False)
    if decoder.spec is None:
        return _in_module(decoder, settings)
    first = first_layer(settings.top, decoder.spec.layers)
    for part in (*decoder.layers()[first:], decoder.norm):
        part.requires_grad_(True)
    named = [(name, weight) for name, weight in decoder.named_parameters() if weight.requires_grad]
    return Tuning(groups=[(named, 1.0)], first=first)


def _in_module(decoder: Any, settings: Settings) -> Tuning:
    """Does the same in transformers' own module."""
    layers = decoder.layers
    first = first_layer(settings.top, len(layers))
    for module in layers.modules[first:]:
        module.requires_grad_(True)
    for vector in layers.behind():
        vector.requires_grad_(True)
    named = [(name, weight) for name, weight in decoder.model.named_parameters() if weight.requires_grad]
    return Tuning(groups=[(named, 1.0)], first=first)
