"""Runs shared blocks in their order, with the change of low rank that each loop after the first may make."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kogata.nn.place import Place
from kogata.nn.spec import ModelSpec


class Change(nn.Module):
    """Changes of one linear layer, one for each loop after the first: y += (x Aᵀ) Bᵀ."""

    def __init__(self, inputs: int, outputs: int, rank: int, loops: int) -> None:
        super().__init__()
        self.down = nn.ParameterList(nn.Parameter(torch.empty(rank, inputs)) for _ in range(loops))
        self.up = nn.ParameterList(nn.Parameter(torch.empty(outputs, rank)) for _ in range(loops))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Starts with no change."""
        for down, up in zip(self.down, self.up, strict=True):
            down.normal_(0.0, 0.5 * down.shape[1] ** -0.5, generator=generator)
            up.zero_()

    def forward(self, x: Tensor, loop: int) -> Tensor:
        """Gives what is added to the layer's output for x [..., inputs]."""
        return F.linear(F.linear(x, self.down[loop]), self.up[loop])


class Loops(nn.Module):
    """The order of shared blocks, and their changes by loop.

    Weights: `changes.b.m.down.l` and `.up.l`, b a block, m its m-th linear layer, l a loop after the first.
    """

    def __init__(self, spec: ModelSpec, blocks: list[nn.Module]) -> None:
        super().__init__()
        shared = spec.shared()
        self.order = shared.order(spec.layers)
        self.loop = [shared.loop_of(layer, spec.layers) for layer in range(spec.layers)]
        later = shared.loops - 1
        self.changes = nn.ModuleList(
            nn.ModuleList(
                Change(layer.in_features, layer.out_features, shared.rank, later) for layer in linears(block)
            )
            for block in (blocks if shared.rank and later else [])
        )

    def run(self, blocks: list[nn.Module], x: Tensor, place: Place, states: list[Any]) -> Tensor:
        """Takes x [B, T, D] through all layers."""
        for layer, number in enumerate(self.order):
            held = self._changed(blocks[number], number, self.loop[layer] - 1)
            try:
                x = blocks[number](x, place, states[layer])
            finally:
                for handle in held:
                    handle.remove()
        return x

    def _changed(self, block: nn.Module, number: int, loop: int) -> list[RemovableHandle]:
        """Lets a block's linear layers add this loop's change to what they give."""
        if loop < 0 or not len(self.changes):
            return []
        handles = []
        for layer, change in zip(linears(block), cast(nn.ModuleList, self.changes[number]), strict=True):

            def add(
                module: nn.Module, given: tuple[Tensor], out: Tensor, change: nn.Module = change
            ) -> Tensor:
                return out + change(given[0], loop)

            handles.append(layer.register_forward_hook(add))
        return handles


def linears(block: nn.Module) -> list[nn.Linear]:
    """Lists a block's linear layers."""
    return [module for module in block.modules() if isinstance(module, nn.Linear)]
