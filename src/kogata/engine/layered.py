"""The layers of a model in transformers' module: found, left out below a given one, computed again.

Any module will do whose layers stand in one list, take a residual stream [B, T, D] first and hand it on to
the next, and need nothing else of each other: that is measured on a few ids before anything relies on it.
What else a layer is called with (masks, positions) the module's own code makes, whatever is left out.

Source: outputs of frozen layers kept, Skip2-LoRA (arXiv 2410.21073); activations computed again, Chen et al.
2016 (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kogata.core.errors import DataError
from kogata.nn.packed import Again

PROBED = 9
"""Ids that a module is probed with."""


class Layers:
    """The decoder layers of a module, each called through here.

    Args:
        model: transformers' module.
        recompute: whether the backward pass computes each layer again instead of keeping what is in it.

    Raises:
        DataError: there is not one list of layers.
    """

    def __init__(self, model: nn.Module, recompute: bool = False) -> None:
        self.model, self.recompute = model, recompute
        self.modules = find_layers(model)
        self.first = 0
        """The lowest layer that is computed with gradients."""
        self.given: Tensor | None = None
        """What enters that layer; None: the layers below are computed."""
        self.seen: Callable[[Tensor], Tensor] | None = None
        """Is shown what enters that layer, and gives what shall."""
        self.only_below = False
        """Whether that layer and those above are left out."""
        self._around = [_Around(self, number, module) for number, module in enumerate(self.modules)]
        for module, around in zip(self.modules, self._around, strict=True):
            module.forward = around  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self.modules)

    def run(
        self,
        compute: Callable[[], Any],
        first: int,
        *,
        given: Tensor | None = None,
        seen: Callable[[Tensor], Tensor] | None = None,
        only_below: bool = False,
    ) -> Any:
        """Calls the module while layers are left out.

        Args:
            compute: calls it.
            first: the lowest layer with something trained; those below run without gradients.
            given: what enters it [B, T, D]; those below are then left out.
            seen: is shown what enters it, and gives what shall enter in its place.
            only_below: leaves it and those above out.
        """
        before = self.first, self.given, self.seen, self.only_below
        self.first, self.given, self.seen, self.only_below = first, given, seen, only_below
        try:
            return compute()
        finally:
            self.first, self.given, self.seen, self.only_below = before

    @property
    def width(self) -> int:
        """Of the stream that goes from layer to layer."""
        config: Any = self.model.config
        return int(config.get_text_config(decoder=True).hidden_size)

    def check(self) -> Layers:
        """Measures that the layers can be left out, and gives itself.

        Raises:
            DataError: the module's layers are not understood.
        """
        why = self._probe()
        if why is not None:
            raise not_understood(type(self.model).__name__, why)
        return self

    def linear(self, first: int) -> list[str]:
        """Lists the linear layers from a layer on, by their names in the module."""
        from transformers.pytorch_utils import Conv1D

        wanted = {
            id(part)
            for module in self.modules[first:]
            for part in module.modules()
            if isinstance(part, nn.Linear | Conv1D)
        }
        return [name for name, part in self.model.named_modules() if id(part) in wanted]

    def behind(self) -> list[nn.Parameter]:
        """Lists the vectors that act behind the last layer: the last norm's."""
        inside = {id(weight) for module in self.modules for weight in module.parameters()}
        vectors = [
            weight
            for weight in base_of(self.model).parameters()
            if id(weight) not in inside and weight.dim() == 1
        ]
        held = [weight.requires_grad for weight in vectors]
        ids = torch.arange(1, 1 + PROBED)[None]
        given = torch.randn(1, PROBED, self.width, generator=torch.Generator().manual_seed(0))
        try:
            for weight in vectors:
                weight.requires_grad_(True)
            found = self.run(
                lambda: base_of(self.model)(input_ids=ids, use_cache=False), len(self) - 1, given=given
            )
            total = found.last_hidden_state.square().sum()
            grads = torch.autograd.grad(total, vectors, allow_unused=True) if vectors else ()
        finally:
            for weight, before in zip(vectors, held, strict=True):
                weight.requires_grad_(before)
        return [weight for weight, grad in zip(vectors, grads, strict=True) if grad is not None]

    @torch.no_grad()
    def _probe(self) -> str | None:
        """Says what the layers do otherwise than they should; None: nothing."""
        device = next(self.model.parameters()).device
        ids = torch.arange(1, 1 + PROBED, device=device)[None].repeat(2, 1)
        mask = torch.ones_like(ids)
        mask[1, PROBED // 2 :] = 0

        def compute() -> Tensor:
            found = base_of(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
            return found.last_hidden_state

        calls: list[tuple[int, Tensor, Any]] = []
        for around in self._around:
            around.told = calls
        try:
            whole = compute()
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        finally:
            for around in self._around:
                around.told = None
        if [number for number, _, _ in calls] != list(range(len(self))):
            return f"layers called in the order {[number for number, _, _ in calls][:8]}"
        for (number, x, result), above in zip(calls, [*calls[1:], None], strict=True):
            y, rest = (result[0], result[1:]) if isinstance(result, tuple) else (result, ())
            plain = isinstance(x, Tensor) and x.dim() == 3 and isinstance(y, Tensor) and y.shape == x.shape
            if not plain or x.shape != (*ids.shape, self.width):
                return f"layer {number} takes and gives no stream [rows, tokens, width]"
            if above is not None and not torch.equal(y, above[1]):
                return f"layer {number + 1} is given something else than what layer {number} gives"
            # What stands beside the stream (attention's weights) nobody may need: the last test shows it.
            self._around[number].rest = (None,) * len(rest) if isinstance(result, tuple) else None
        for first in sorted({1, len(self) // 2, len(self) - 1} - {0}):
            try:
                same = torch.equal(self.run(compute, first, given=calls[first][1]), whole)
            except Exception:
                same = False
            if not same:
                return f"layers from {first} on need more than what layer {first - 1} gives"
        return None


class _Around:
    """Stands for a layer's `forward`."""

    def __init__(self, layers: Layers, number: int, module: nn.Module) -> None:
        self.layers, self.number, self.inner = layers, number, module.forward
        self.told: list[tuple[int, Tensor, Any]] | None = None
        self.rest: tuple[None, ...] | None = None
        """What the layer gives beside the stream; None: it gives the stream alone."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        layers = self.layers
        x, args = (args[0], args[1:]) if args else (named.pop("hidden_states", None), ())
        below = self.number < layers.first
        if layers.only_below and not below:
            if self.number == layers.first and layers.seen is not None:
                layers.seen(x)
            return self._as_given(x)
        if below:
            if layers.given is not None:
                return self._as_given(x)
            with torch.no_grad():
                return self.inner(x, *args, **named)
        if self.number == layers.first:
            x = x if layers.given is None else layers.given
            x = x if layers.seen is None else layers.seen(x)
        if layers.recompute and torch.is_grad_enabled():
            # What is trained lies in the layer: the result needs a gradient even where x does not.
            marker = x.new_zeros(()).requires_grad_()
            return self._as_given(Again.apply(x, marker, self._stream, (args, named)))
        result = self.inner(x, *args, **named)
        if self.told is not None:
            self.told.append((self.number, x, result))
        return result

    def _stream(self, x: Tensor, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
        found = self.inner(x, *args, **named)
        return found[0] if isinstance(found, tuple) else found

    def _as_given(self, x: Tensor) -> Any:
        return x if self.rest is None else (x, *self.rest)


def base_of(model: Any) -> Any:
    """Gives the part of a language model of transformers that computes hidden vectors."""
    return model.base_model


def find_layers(model: Any) -> list[nn.Module]:
    """Finds the list of decoder layers of a module: the one as long as its config says.

    Raises:
        DataError: there is none, or more than one.
    """
    config = model.config.get_text_config(decoder=True)
    count = getattr(config, "num_hidden_layers", None)
    lists = [
        (name, part)
        for name, part in base_of(model).named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    outer = [one for one in lists if not any(one[0].startswith(f"{name}.") for name, _ in lists)]
    if len(outer) != 1:
        where = ", ".join(name for name, _ in outer) or "no list"
        raise not_understood(type(model).__name__, f"{where} of {count} layers")
    modules = list(outer[0][1])
    if len({id(module) for module in modules}) != len(modules):
        raise not_understood(type(model).__name__, "layers that stand there more than once")
    return modules


def not_understood(name: str, found: str) -> DataError:
    """Says that the layers of a module are not understood."""
    return DataError(
        "the layers of this model are not understood",
        where=name,
        found=found,
        expected="one list of layers, each of which takes what the one below gives",
        remedy="train all layers with weights in float32: leave `top`, `hold` and `recompute` out",
    )
