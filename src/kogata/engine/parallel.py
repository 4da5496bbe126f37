"""Data parallel over processes that the runner started: one collective a step, gloo on a CPU.

Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without them, or with one process, nothing happens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from kogata.core.errors import KogataError
from kogata.engine.checkpoint import Checkpoint, load_checkpoint

MEETING_SECONDS = 3600.0
"""How long a process waits for the others: one may evaluate or write for long. Who is gone or stopped is
noticed much sooner, by `runtime/pulse.py`."""
_PARTED = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")


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
    def join(rank: int | None = None, world: int | None = None, *, timeout: float = MEETING_SECONDS) -> Group:
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
        """Reads the newest checkpoint of rank 0, which sends it to those who have another folder."""
        found = load_checkpoint(folder)
        if self.world == 1:
            return found
        steps = self.share_numbers([-1 if found is None else found.step])
        if steps[0] < 0:
            return None
        mine = torch.tensor([float(found is not None and found.step == steps[0])], dtype=torch.float64)
        torch.distributed.all_reduce(mine)
        if int(mine) == self.world:
            return found
        sent = b"" if self.rank else save({} if found is None else found.tensors)
        tensors = load(self.share_bytes(sent))
        facts = "" if found is None else json.dumps(found.facts)
        facts = json.loads(self.share_bytes(facts.encode()))
        return Checkpoint(step=int(steps[0]), tensors=tensors, facts=facts)

    def share_bytes(self, content: bytes) -> bytes:
        """Gives every process the bytes of rank 0."""
        if self.world == 1:
            return content
        size = int(self.share_numbers([len(content)])[0])
        held = torch.zeros(size, dtype=torch.uint8)
        if self.rank == 0:
            held = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        torch.distributed.broadcast(held, 0)
        return held.numpy().tobytes()

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


def local_rank(rank: int) -> int:
    """Gives the number of a process among those of its computer."""
    return int(os.environ.get("LOCAL_RANK", rank))


def local_world(world: int) -> int:
    """Gives how many of the processes are on this computer."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))


def explain_parting(error: BaseException) -> KogataError | None:
    """Explains what a collective raises when another process went or never came; None for any other error."""
    named = isinstance(error, torch.distributed.DistError)
    if not named and not (isinstance(error, RuntimeError) and any(word in str(error) for word in _PARTED)):
        return None
    found = KogataError(
        "the processes lost each other",
        found=str(error).strip().partition("\n")[0],
        remedy="run the same command again; it goes on from the last checkpoint",
    )
    found.exit_code = 1
    return found
