"""A fused linear layer as its pieces, each a module of its own, so that another library can change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kogata.nn.products import through


def split(layer: Any, pieces: Sequence[tuple[int, int]]) -> list[nn.Linear]:
    """Gives the pieces of a linear layer; their weights are the same memory.

    Args:
        layer: the linear layer.
        pieces: the first row and last row + 1 of each.
    """
    weight, bias = layer.weight, layer.bias
    found = []
    for start, stop in pieces:
        made = nn.Linear(1, 1, bias=False, device="meta")
        made.in_features, made.out_features = int(weight.shape[1]), stop - start
        made.weight = nn.Parameter(weight.detach()[start:stop], requires_grad=False)
        if bias is not None:
            made.bias = nn.Parameter(bias.detach()[start:stop], requires_grad=False)
        found.append(made)
    return found


class Names(nn.Module):
    """Modules under dotted names, as in a model whose parts are not needed."""

    def put(self, path: str, module: nn.Module) -> None:
        """Puts a module under a name such as `model.layers.0.mlp.up_proj`."""
        *folders, last = path.split(".")
        place: nn.Module = self
        for name in folders:
            if not hasattr(place, name):
                place.add_module(name, nn.Module())
            place = getattr(place, name)
        place.add_module(last, module)

    def get(self, path: str) -> Any:
        """Gives the module that stands under a name now."""
        return self.get_submodule(path)

    def sums(self) -> list[float]:
        """Adds up the weights of each linear layer, to tell whether one was changed."""
        found = []
        for name, weight in self.named_parameters():
            if name.removesuffix(".weight").endswith(("_proj", "base_layer")):
                found.append(float(weight.detach().double().sum()))
        return found

    def forward(self, *_: Any) -> Tensor:
        """Is no model that computes anything."""
        raise NotImplementedError


class Joined(nn.Module):
    """Calls its pieces one by one and lays their outputs side by side; looks like the layer they are of.

    Args:
        pieces: linear layers, or what was put in their place.
        layer: the fused layer.
    """

    def __init__(self, pieces: Sequence[nn.Module], layer: Any) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)
        self.in_features: int = layer.in_features
        self.out_features: int = layer.out_features
        self.biased: bool = layer.bias is not None

    def forward(self, x: Tensor) -> Tensor:
        """Computes y [..., out] of x [..., in]."""
        if len(self.pieces) == 1:
            return through(self.pieces[0], x)
        return torch.cat([through(piece, x) for piece in self.pieces], -1)

    @property
    def bias(self) -> Tensor | None:
        """What is added to every output; None where the layer has no bias."""
        if not self.biased:
            return None
        with torch.no_grad():
            return self(torch.zeros(1, self.in_features))[0]

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Computes the weight [out, in] that does what the pieces do, from what they make of each input."""
        at_rest = self(torch.zeros(1, self.in_features))
        return (self(torch.eye(self.in_features)) - at_rest).T.contiguous()
