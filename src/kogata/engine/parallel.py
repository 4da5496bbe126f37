"""Data parallel over processes that the runner started: one collective a step, gloo on a CPU.

Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without them, or with one process, nothing happens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

from kogata.engine.checkpoint import Checkpoint, load_checkpoint


class Group:
    """The processes at work on one stage. With one process every method is free.

    Args:
        rank: this process's number.
        world: how many there are.
    """

    sharded = False
    """Whether weights are divided over the processes (`engine/sharded.py`)."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self._flat: Tensor | None = None

    @staticmethod
    def join(rank: int | None = None, world: int | None = None, *, timeout: float = 600.0) -> Group:
        """Meets the other processes at MASTER_ADDR:MASTER_PORT."""
        rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        world = int(os.environ.get("WORLD_SIZE", "1")) if world is None else world
        if world > 1 and not torch.distributed.is_initialized():
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            torch.distributed.init_process_group(
                backend, rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
            )
        return Group(rank, world)

    def leave(self) -> None:
        """Ends the group; what follows is each process's own."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def sum_gradients(self, parameters: Sequence[Tensor], extra: Sequence[float]) -> list[float]:
        """Adds every process's gradients and extra numbers, in place and in one collective.

        A process that had no part of the batch counts as zeros.
        """
        if self.world == 1:
            return list(extra)
        size = sum(p.numel() for p in parameters) + 2 * len(extra)
        if self._flat is None or self._flat.numel() < size:
            self._flat = torch.zeros(size, device=parameters[0].device)
        flat, at = self._flat[:size], 0  # Steps that move fewer parameters send less.
        for p in parameters:
            part = flat[at : at + p.numel()].view(p.shape)
            if p.grad is None:
                part.zero_()
            else:
                part.copy_(p.grad)
            at += p.numel()
        # A float64 travels as two float32, so that a loss sum or a time keeps its digits.
        numbers = torch.tensor(extra, dtype=torch.float64)
        high = numbers.float()
        flat[at : at + len(extra)] = high
        flat[at + len(extra) :] = (numbers - high.double()).float()
        torch.distributed.all_reduce(flat)
        at = 0
        for p in parameters:
            p.grad = flat[at : at + p.numel()].view(p.shape)
            at += p.numel()
        parts = flat[at:].double().tolist()
        return [parts[i] + parts[len(extra) + i] for i in range(len(extra))]

    def norm(self, parameters: Sequence[Tensor]) -> float:
        """Computes the length of all gradients together."""
        grads = [p.grad for p in parameters if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))

    def checkpoints(self, folder: Path) -> Path:
        """Gives the folder that checkpoints are in."""
        return folder

    def newest(self, folder: Path) -> Checkpoint | None:
        """Reads the newest checkpoint."""
        return load_checkpoint(folder)

    def share_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Gives every process the numbers of rank 0."""
        if self.world == 1:
            return list(numbers)
        held = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.broadcast(held, 0)
        return held.tolist()

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Makes every process's tensors those of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, 0)

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()
