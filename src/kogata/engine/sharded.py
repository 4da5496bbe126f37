"""Weights divided over processes: torch's FSDP2 for the blocks, copies of the rest on every process.

Each process keeps its part of every block's weights, gradients and averages; a block's whole weights are
there only while it is computed. Embedding, head and the last norm are whole everywhere, their gradients added
as in `engine/parallel.py`. Every process writes its own checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from kogata.engine.checkpoint import Checkpoint, load_checkpoint
from kogata.engine.parallel import Group
from kogata.nn.decoder import Decoder
from kogata.nn.optim import local


class ShardedGroup(Group):
    """The processes at work on one stage, each with its part of the blocks."""

    sharded = True

    def sum_gradients(self, parameters: Sequence[Tensor], extra: Sequence[float]) -> list[float]:
        """Adds the gradients of what is whole everywhere; those of parts come as means and are made sums."""
        parts = [p.grad for p in parameters if _is_part(p) and p.grad is not None]
        if parts:
            torch._foreach_mul_([local(grad) for grad in parts], float(self.world))
        return super().sum_gradients([p for p in parameters if not _is_part(p)], extra)

    def norm(self, parameters: Sequence[Tensor]) -> float:
        """Computes the length of all gradients together."""
        squares = torch.zeros(2, dtype=torch.float64)
        for parameter in parameters:
            if parameter.grad is not None:
                part = local(parameter.grad)
                squares[int(_is_part(parameter))] += part.double().square().sum().cpu()
        torch.distributed.all_reduce(mine := squares[1:].to(local(parameters[0]).device))
        return float((squares[:1] + mine.cpu()).sqrt())

    def checkpoints(self, folder: Path) -> Path:
        """Gives this process's own folder of checkpoints."""
        return folder / f"rank-{self.rank}"

    def newest(self, folder: Path) -> Checkpoint | None:
        """Reads the newest checkpoint that every process has."""
        found = load_checkpoint(self.checkpoints(folder))
        mine = torch.tensor([-1 if found is None else found.step])
        steps = [torch.zeros_like(mine) for _ in range(self.world)]
        torch.distributed.all_gather(steps, mine)
        least = min(int(step) for step in steps)
        if least < 0:
            return None
        if found is not None and found.step != least:
            found = load_checkpoint(self.checkpoints(folder), at=least)
        return found


def shard(decoder: Decoder, group: Group, device: str) -> None:
    """Divides the blocks over the processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (group.world,))
    for block in decoder.layers():
        fully_shard(block, mesh=mesh)


@torch.no_grad()
def whole(decoder: Decoder) -> Decoder:
    """Puts the weights together again, in a decoder of its own in every process; all must ask for it."""
    for block in decoder.layers():
        cast(Any, block).reshard()
    made = Decoder(decoder.spec, seed=None)
    for target, held in zip(made.parameters(), decoder.parameters(), strict=True):
        target.copy_(cast(Any, held).full_tensor() if _is_part(held) else held)
    return made


def _is_part(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")
