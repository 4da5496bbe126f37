"""Trains some of the model's own weights: upper layers, norms or embeddings; everything else stays.

Pays when: rows are seen several times and what is to be learned is form more than knowledge: from the second
    epoch on only the upper layers are computed.
Hurts when: the task needs the lower layers: take `lora` or `full` then.
Cost: 20 bytes for each weight that is trained; 2 bytes a token and unit of width on disk. Norms are so few
    that a model with them alone costs what reading it twice does; embeddings need a backward pass through all
    layers.
Source: the last quarter of the layers reaches most of full fine-tuning (arXiv 1911.03090); norms alone,
    Zhao et al. 2023 (arXiv 2312.11420); outputs kept as in Skip2-LoRA (arXiv 2410.21073).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
LAYERS = True
"""Whether it looks for the layers of such a model."""


class Settings(VariantSettings):
    """What is trained."""

    parts: Literal["layers", "norms", "embeddings"] = Field(
        default="layers",
        description="of the model's own weights: whole layers; the norms in them; or what ids become at the "
        "bottom and scores are made of at the top",
    )
    top: Literal["all", "third"] | int = Field(
        default="third",
        description="of which layers: all, so many upper ones, or third; the last norm is trained with them",
    )

    @model_validator(mode="after")
    def _no_layers_of_embeddings(self) -> Settings:
        if self.parts == "embeddings" and "top" in self.model_fields_set:
            raise ValueError("embeddings lie in no layer: leave `top` out")
        return self


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = lowest_layer(settings.top, spec, "freeze")
    if settings.parts == "embeddings":
        tables = 1 if spec.tied else 2
        return Work(trained=tables * spec.vocab_size * (spec.embed_width or spec.width))
    above = spec.layer_sizes()[first:]
    ffn = sum(rows * columns for rows, columns in ffn_matrices(spec))
    norms = (4 if spec.sandwich_norms else 2) * spec.width
    if settings.parts == "norms":
        heads = 2 * spec.head_dim if spec.qk_norm else 0
        return Work(trained=len(above) * (norms + heads) + spec.width, first=first)
    dense = sum(one.matrix_parameters + ffn for one in above)
    vectors = sum(one.vectors + norms for one in above) + spec.width
    return Work(trained=dense + vectors, dense=dense, first=first)


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return full_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Makes the chosen weights trained and freezes everything else."""
    decoder.requires_grad_(False)
    if decoder.spec is None:
        return _in_module(decoder, settings)
    first = first_layer(settings.top, decoder.spec.layers)
    if settings.parts == "embeddings":
        return _tables(decoder, [decoder.embed, decoder.head])
    for part in (*decoder.layers()[first:], decoder.norm):
        _train(part, settings)
    named = [(name, weight) for name, weight in decoder.named_parameters() if weight.requires_grad]
    return Tuning(groups=[(named, 1.0)], first=first)


def _in_module(decoder: Any, settings: Settings) -> Tuning:
    """Does the same in transformers' own module."""
    layers, model = decoder.layers, decoder.model
    if settings.parts == "embeddings":
        return _tables(model, [model.get_input_embeddings(), model.get_output_embeddings()])
    first = first_layer(settings.top, len(layers))
    for module in layers.modules[first:]:
        _train(module, settings)
    for vector in layers.behind():
        vector.requires_grad_(True)
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return Tuning(groups=[(named, 1.0)], first=first)


def _train(module: Any, settings: Settings) -> None:
    """Makes a layer trained, or the norms in it."""
    for part in module.modules():
        if settings.parts == "layers" or "norm" in type(part).__name__.lower():
            for weight in part.parameters(recurse=False):
                weight.requires_grad_(True)


def _tables(model: Any, tables: list[Any]) -> Tuning:
    """Makes the embeddings trained, and the head where it has weights of its own."""
    for table in tables:
        if table is not None:
            table.requires_grad_(True)
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return Tuning(groups=[(named, 1.0)], first=-1)
