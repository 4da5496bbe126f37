"""Trains some of the model's own weights: whole heads and channels as dense blocks, or the best single ones.

`blocks` changes what stands behind some heads and some channels of the feed-forward parts, chosen at random:
narrow dense products, nothing else. `scattered` reads a few batches first and changes the weights with the
largest mean gradient. Both come out as the difference to the model, which peft reads as SHiRA; with `merge:
true` a whole model comes out.

Pays when: `blocks`: as `lora`, at a little less time and memory; `scattered`: little of what the model could
    do shall be lost.
Hurts when: time is short and the form is `scattered`: it needs every weight's gradient to use a few of them.
Cost: `blocks` less than `lora` of the same rank; `scattered` the products of `full`, and before the first
    step 4 bytes for each weight of the blocks.
Source: structured: S²FT (arXiv 2412.06289); static masks by gradient match other ones (arXiv 2412.13488);
    SHiRA (arXiv 2406.13175).
Measured here: not yet measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kogata.core.errors import RecipeError
from kogata.engine.finetune._common import (
    Target,
    Tuning,
    UpperLayers,
    Work,
    layer_shapes,
    lora_lr,
    refuse_left,
    refuse_modules,
    targets,
    unfit,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "SHIRA"
PASSES = 4
"""Batches whose gradients choose the weights."""


class Settings(UpperLayers):
    """What is trained."""

    form: Literal["blocks", "scattered"] = Field(
        default="blocks",
        description="blocks: whole heads and channels, chosen at random; scattered: the single weights with "
        "the largest gradients",
    )
    rank: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="of each matrix as many weights are trained as a low-rank change of this rank has",
    )


def _counts(spec: ModelSpec, settings: Settings) -> dict[str, int]:
    """Counts the trained weights of each changed matrix of a layer, by transformers' names."""
    shapes = layer_shapes(spec)
    found = {name: settings.rank * (rows + columns) for name, (rows, columns) in shapes.items()}
    if settings.form == "blocks":
        heads, channels = _blocks(spec, settings)
        found = {"o_proj": spec.width * heads * spec.head_dim, "down_proj": spec.width * channels}
        asked = {
            name: _written_rank(count, shapes[name]) * sum(shapes[name]) for name, count in found.items()
        }
    else:
        asked = found
    for name, count in asked.items():
        rows, columns = shapes[name]
        if count > rows * columns:
            raise RecipeError(
                "more weights are asked for than the matrix has",
                where="method.sparse.rank",
                found=f"{count:,} of {name}'s {rows * columns:,}",
                expected=f"a rank below {settings.rank}",
                remedy="train every weight: `method: full`, or whole layers: `method: freeze`",
            )
    return found


def _blocks(spec: ModelSpec, settings: Settings) -> tuple[int, int]:
    """Gives the numbers of heads and channels that are trained."""
    heads = settings.rank * (spec.width + spec.q_width) / (spec.width * spec.head_dim)
    return max(1, round(heads)), round(settings.rank * (spec.width + spec.ffn_width) / spec.width)


def _written_rank(count: int, shape: tuple[int, int]) -> int:
    """Gives the rank by which peft counts at least so many weights of a matrix."""
    return math.ceil(count / sum(shape))


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    first = settings.lowest(spec, "sparse")
    layers = spec.layers - first
    count = layers * sum(_counts(spec, settings).values())
    if settings.form == "blocks":
        heads, channels = _blocks(spec, settings)
        return Work(trained=count, added=count, first=first, rank_floats=heads * spec.head_dim + channels)
    dense = layers * sum(rows * columns for rows, columns in layer_shapes(spec).values())
    return Work(trained=count, dense=dense, first=first, floats=dense + count, steps_before=PASSES)


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits: changes are held apart from them."""
    return True


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    lr = lora_lr(spec)[0] / 3
    return float(f"{lr:.2g}"), f"a third of what low-rank changes take at width {spec.width}"


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Puts changes of some weights beside the linear layers and freezes everything else."""
    first = settings.first(decoder.spec.layers)
    decoder.requires_grad_(False)
    above = [target for target in list(targets(decoder)) if target.layer >= first]
    put = _put_blocks if settings.form == "blocks" else _put_scattered
    return put(decoder.spec, above, settings, seed, first)


def _put_blocks(spec: ModelSpec, above: list[Target], settings: Settings, seed: int, first: int) -> Tuning:
    import torch

    from kogata.nn.adapters.columns import Columns

    generator = torch.Generator().manual_seed(seed)
    heads, channels = _blocks(spec, settings)
    made: list[tuple[Target, Columns]] = []
    for target in above:
        if all(peer.endswith("o_proj") for peer in target.pieces):
            some = torch.randperm(spec.heads, generator=generator)[:heads].sort().values
            columns = (some[:, None] * spec.head_dim + torch.arange(spec.head_dim)).flatten()
        elif all(peer.endswith("down_proj") for peer in target.pieces):
            columns = torch.randperm(spec.ffn_width, generator=generator)[:channels].sort().values
        else:
            continue
        module = Columns(target.module, columns)
        target.put(module)
        made.append((target, module))

    def save(folder: Path, base: str | None) -> None:
        changes = {}
        for target, module in made:
            (peer,) = target.pieces
            rows = torch.arange(module.out_features)[:, None].expand(module.change.shape)
            places = torch.stack([rows, module.columns.cpu().expand(module.change.shape)])
            changes[peer] = (places.flatten(1), module.change.detach().cpu().flatten())
        _write(changes, spec, settings, folder, base)

    named = [(f"{target.path}.change", module.change) for target, module in made]
    return Tuning(groups=[(named, 1.0)], first=first, save=save)


def _put_scattered(spec: ModelSpec, above: list[Target], settings: Settings, seed: int, first: int) -> Tuning:
    import torch

    from kogata.nn.adapters.scattered import Scattered

    each = _counts(spec, settings)
    made: list[tuple[Target, Scattered, list[int]]] = []
    for target in above:
        counts = [each[peer.rsplit(".", 1)[1]] for peer in target.pieces]
        module = Scattered(target.module, sum(counts))
        target.put(module)
        made.append((target, module, counts))

    def begin(passes: Callable[[int], None], place: Path) -> None:
        _choose(made, passes, place)

    def save(folder: Path, base: str | None) -> None:
        changes = {}
        for target, module, counts in made:
            places, values = module.places.cpu().long(), module.values.detach().cpu()
            rows, columns = places // module.in_features, places % module.in_features
            pairs = torch.stack([rows, columns]).split(counts, 1)
            pieces = zip(target.pieces.items(), pairs, values.split(counts), strict=True)
            for (peer, (start, _)), pair, some in pieces:
                changes[peer] = (pair - torch.tensor([[start], [0]]), some)
        _write(changes, spec, settings, folder, base)

    named = [(f"{target.path}.values", module.values) for target, module, _ in made]
    return Tuning(groups=[(named, 1.0)], first=first, save=save, begin=begin)


def _choose(made: list[tuple[Target, Any, list[int]]], passes: Callable[[int], None], place: Path) -> None:
    """Chooses the weights by their gradients, or as they were chosen before the run was stopped."""
    import numpy as np
    import torch

    if place.is_file():
        kept = torch.from_numpy(np.load(place)).split([len(module.places) for _, module, _ in made])
        for (_, module, _), places in zip(made, kept, strict=True):
            module.places.copy_(places)
        return
    for _, module, _ in made:
        module.measure()
    passes(PASSES)
    for target, module, counts in made:
        module.choose(list(target.pieces.values()), counts)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f"{os.getpid()}.{place.name}")
    with beside.open("wb") as file:
        np.save(file, torch.cat([module.places.cpu() for _, module, _ in made]).numpy())
    os.replace(beside, place)


def _write(
    changes: dict[str, Any], spec: ModelSpec, settings: Settings, folder: Path, base: str | None
) -> None:
    """Writes peft's format: it counts rank · (rows + columns) weights of each matrix; the rest are zeros."""
    import torch

    from kogata.engine.adapters import write_adapter

    shapes = layer_shapes(spec)
    sized = [(len(values), shapes[peer.rsplit(".", 1)[1]]) for peer, (_, values) in changes.items()]
    rank = max(_written_rank(*one) for one in sized)
    tensors: dict[str, Any] = {}
    for (peer, (places, values)), (count, shape) in zip(changes.items(), sized, strict=True):
        more = rank * sum(shape) - count
        stem = f"base_model.model.{peer}"
        tensors[f"{stem}.shira_weight"] = torch.cat([values, torch.zeros(more)])
        tensors[f"{stem}.shira_indices"] = torch.cat([places, places.new_zeros(2, more)], 1).int()
    config = {
        "r": rank,
        "mask_type": "random",
        "target_modules": [peer.removeprefix("model.") for peer in changes],
        "fan_in_fan_out": False,
        "init_weights": True,
    }
    write_adapter(folder, PEFT_TYPE, base, config, tensors)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, beside the decoder's layers.

    Raises:
        DataError: it changes what cannot be changed here, or does not fit the model.
    """
    import torch

    from kogata.nn.adapters.scattered import Scattered

    refuse_modules(config, where, "changed weights")
    left = dict(tensors)
    for target in list(targets(decoder)):
        layer = target.module
        places, values = [], []
        for peer, (start, stop) in target.pieces.items():
            weight = left.pop(f"base_model.model.{peer}.shira_weight", None)
            pair = left.pop(f"base_model.model.{peer}.shira_indices", None)
            if weight is None or pair is None:
                continue
            rows, columns = pair.long()
            if len(weight) != len(rows) or int(rows.max()) >= stop - start or (
                int(columns.max()) >= layer.in_features
            ):  # fmt: skip
                raise unfit(
                    where=f"{where}: {peer}",
                    found=f"{len(weight)} weights at {len(rows)} places up to row {int(rows.max())}, "
                    f"column {int(columns.max())}",
                    expected=f"places within {stop - start} rows and {layer.in_features} columns",
                )
            places.append((rows + start) * layer.in_features + columns)
            values.append(weight.float())
        if places:
            module = Scattered(layer, sum(map(len, values)))
            module.places.copy_(torch.cat(places))
            module.values.data = torch.cat(values)
            target.put(module)
    refuse_left(left, where)
