"""Frozen weights of a module of transformers in 16 or 8 bits or on disk, widened module by module.

A module that has matrices of its own (a linear layer, a set of experts) gets them in float32 for the moment
of its forward pass. What autograd would keep of them it keeps as a place in the narrow form, and widens that
again in the backward pass: the module itself is left as it is, so any will do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kogata.core.errors import DataError
from kogata.engine.adapters import Fingerprint
from kogata.engine.finetune_costs import Hold
from kogata.engine.heap import trim
from kogata.engine.hf_folder import read_config
from kogata.engine.layered import Layers, base_of
from kogata.engine.load import Foreign
from kogata.engine.streamed import Stream
from kogata.nn.held import Bfloat16, Int8

FORMS = {"bf16": Bfloat16, "int8": Int8}


class Widened:
    """Stands for the `forward` of a module whose matrices are held in another form.

    Args:
        module: it keeps its parameters, as shapes without memory.
        holds: what gives each matrix, by its name in the module.
    """

    def __init__(self, module: nn.Module, holds: dict[str, Any]) -> None:
        self.module, self.holds, self.inner = module, holds, module.forward
        self._put({name: _shape_alone(getattr(module, name)) for name in holds})

    def __call__(self, *args: Any, **named: Any) -> Any:
        wide = {name: hold.wide() for name, hold in self.holds.items()}
        places = {tensor.untyped_storage().data_ptr(): self.holds[name] for name, tensor in wide.items()}

        def pack(tensor: Tensor) -> Any:
            hold = places.get(tensor.untyped_storage().data_ptr())
            if hold is None:
                return tensor
            return _Part(hold, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())

        empty = {name: getattr(self.module, name).data for name in self.holds}
        self._put(wide)
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
                return self.inner(*args, **named)
        finally:
            self._put(empty)

    def _put(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            getattr(self.module, name).data = tensor


class _Part:
    """A view into a matrix that is held."""

    def __init__(self, hold: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.hold, self.offset, self.shape, self.stride = hold, offset, shape, stride

    def wide(self) -> Tensor:
        """Widens the rows that the view lies in, and gives it."""
        last = self.offset + sum(
            (size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)
        )
        columns = self.hold.shape[-1]
        rows = self.offset // columns, last // columns + 1
        flat = self.hold.rows(*rows).reshape(-1)
        return flat.as_strided(self.shape, self.stride, self.offset - rows[0] * columns)


def _unpack(saved: Any) -> Tensor:
    return saved.wide() if isinstance(saved, _Part) else saved


def _shape_alone(weight: Tensor) -> Tensor:
    """Gives a tensor of a shape that takes no memory; whoever reads it by another way gets no number."""
    return torch.full((), float("nan")).expand(weight.shape)


def narrow(module: nn.Module, hold: Hold, stream: Stream | None) -> None:
    """Puts the matrices of a layer into another form.

    Args:
        module: the layer; nothing in it is trained.
        hold: the form.
        stream: the file, where the form is `disk`.
    """
    owners = [
        (part, name, weight)
        for part in module.modules()
        for name, weight in part.named_parameters(recurse=False)
        if weight.dim() >= 2
    ]
    weights: list[Tensor] = [weight for _, _, weight in owners]
    held = stream.add(weights) if stream is not None else [FORMS[hold](weight) for weight in weights]
    parts: dict[int, tuple[nn.Module, dict[str, Any]]] = {}
    for (part, name, _), one in zip(owners, held, strict=True):
        parts.setdefault(id(part), (part, {}))[1][name] = one
    del owners, weights
    for part, holds in parts.values():
        part.forward = Widened(part, holds)  # type: ignore[method-assign]
    trim()


def bytes_of(model: nn.Module) -> int:
    """Counts what a module's weights take in memory, those in another form as they are held."""
    found = sum(weight.untyped_storage().nbytes() for weight in model.parameters())
    for part in model.modules():
        around = part.__dict__.get("forward")
        if isinstance(around, Widened):
            found += sum(hold.bytes for hold in around.holds.values())
    return found


def load_held(
    folder: Path,
    names: set[str],
    get: Callable[[str], Tensor],
    hold: Hold,
    stream: Stream | None,
    recompute: bool,
) -> tuple[Foreign, str]:
    """Reads a model tensor by tensor, narrows it layer by layer; gives it, and its weights' fingerprint.

    Args:
        folder: the model's.
        names: of the tensors in its files.
        get: reads one of them.
        hold: the form of the layers' matrices; everything else stays in float32.
        stream: the file that `disk` writes and reads.
        recompute: see `Layers`.

    Raises:
        DataError: weights are missing or have other shapes, or the layers are not understood.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, initialization

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with initialization.no_init_weights():
        # Memory that nobody wrote to takes no room: a layer has some from when it is read to its narrowing.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.tie_weights()
    model.requires_grad_(False).eval()
    layers, mark = Layers(model, recompute), Fingerprint()
    place = {id(weight): number for number, part in enumerate(layers.modules) for weight in part.parameters()}
    prefix = next(f"{name}." for name, part in model.named_modules() if part is base_of(model))
    narrowed = 0
    for name, weight in list(model.named_parameters()):
        value = _value(name, prefix, names, get, tuple(weight.shape), folder)
        below = place.get(id(weight), narrowed)
        while narrowed < below:
            narrow(layers.modules[narrowed], hold, stream)
            narrowed += 1
        weight.data.copy_(value)
        del value
        mark.add(name, weight.data)
    for module in layers.modules[narrowed:]:
        narrow(module, hold, stream)
    context = read_config(folder).get("max_position_embeddings")
    decoder = Foreign(model, context if isinstance(context, int) else None)
    decoder.layers = layers.check()
    return decoder, mark.digest()


def _value(
    name: str,
    prefix: str,
    names: set[str],
    get: Callable[[str], Tensor],
    shape: tuple[int, ...],
    folder: Path,
) -> Tensor:
    """Reads a tensor by the name the module has for it, or by that of its part that gives hidden vectors."""
    short = name.removeprefix(prefix)
    found = next((one for one in (name, short, _OTHER_NAMES.get(name)) if one in names), None)
    value = None if found is None else get(found)
    if value is None:
        value = _experts(short, [one for one in (prefix, "") if _has(one + short, names)], names, get)
    if value is None or tuple(value.shape) != shape:
        raise DataError(
            "a weight is missing" if value is None else "a weight does not fit config.json",
            where=f"{folder}: {name}",
            found="no such tensor" if value is None else str(list(value.shape)),
            expected=str(list(shape)),
            remedy="take `hold: fp32`, which transformers itself reads",
        )
    return value


_OTHER_NAMES = {"lm_head.weight": "embed_out.weight"}
"""What older files call a weight."""
_EXPERTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""What a module calls the matrices of all experts, and files those of one."""


def _has(name: str, names: set[str]) -> bool:
    stem, _, leaf = name.rpartition(".")
    return leaf in _EXPERTS and f"{stem}.0.{_EXPERTS[leaf][0]}.weight" in names


def _experts(name: str, prefixes: list[str], names: set[str], get: Callable[[str], Tensor]) -> Tensor | None:
    """Puts the matrices of all experts together, which lie in the files one by one."""
    if not prefixes:
        return None
    stem, _, leaf = (prefixes[0] + name).rpartition(".")
    found = []
    while f"{stem}.{len(found)}.{_EXPERTS[leaf][0]}.weight" in names:
        pieces = [get(f"{stem}.{len(found)}.{piece}.weight") for piece in _EXPERTS[leaf]]
        found.append(torch.cat(pieces))
    return torch.stack(found)
