"""Frozen weights on disk, read layer by layer as they are used, the next layer while this one computes.

They lie in one file in 16 bits, each layer's matrices together. Two layers are in memory: the one at work
and the one that is read ahead, upwards in the forward pass and downwards in the backward pass.
"""

from __future__ import annotations

import math
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes at whose multiples a matrix begins."""


class Stream:
    """A file of layers, and two of them in memory.

    Args:
        path: the file; it is written anew.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = path.open("w+b", buffering=0)
        self._pool = ThreadPoolExecutor(1)
        self.close = weakref.finalize(self, _close, self._pool, self._file)
        self._starts: list[int] = [0]
        self._held: dict[int, Tensor] = {}
        self._ahead: tuple[int, Future[Tensor]] | None = None
        self._at, self._up = -1, True
        self.late = 0
        """Layers that were not read ahead."""

    @property
    def layers(self) -> int:
        """Layers written so far."""
        return len(self._starts) - 1

    def add(self, matrices: list[Tensor]) -> list[OnDisk]:
        """Writes the matrices of the next layer; gives what reads each."""
        layer, start, found = self.layers, self._starts[-1], []
        at = 0
        for matrix in matrices:
            narrow = matrix.detach().to(torch.bfloat16).contiguous()
            self._write(start + at, narrow.view(torch.uint8).numpy().tobytes())
            found.append(OnDisk(self, layer, at, tuple(narrow.shape)))
            at += -(-2 * narrow.numel() // ALIGNED) * ALIGNED
        # The last matrix need not fill its place: the file does.
        self._file.truncate(start + at)
        self._starts.append(start + at)
        return found

    def layer(self, layer: int) -> Tensor:
        """Gives a layer's bytes, and begins to read the one that comes next."""
        if layer != self._at:
            self._go(layer)
        return self._held[layer]

    def _go(self, layer: int) -> None:
        if self._ahead is not None and self._ahead[0] == layer:
            data = self._ahead[1].result()
        else:
            self.late += 1
            data = self._pool.submit(self._read, layer, None).result()
        spare = self._held.pop(self._at, None)
        self._held = {layer: data}
        if self._at >= 0:
            self._up = layer > self._at
        self._at = layer
        following = layer + (1 if self._up else -1)
        if not 0 <= following < self.layers:
            # The forward pass turns at the top; a backward pass ends at the bottom, where the next begins.
            following = layer + (-1 if self._up else 1)
        if 0 <= following < self.layers:
            self._ahead = following, self._pool.submit(self._read, following, spare)

    def _read(self, layer: int, into: Tensor | None) -> Tensor:
        start, size = self._starts[layer], self._starts[layer + 1] - self._starts[layer]
        data = into if into is not None and len(into) == size else torch.empty(size, dtype=torch.uint8)
        view = data.numpy().data
        self._file.seek(start)
        while view:
            count = self._file.readinto(view)
            assert count, "the file of weights was cut"
            view = view[count:]
        return data

    def _write(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def _close(pool: ThreadPoolExecutor, file: BinaryIO) -> None:
    """Closes the file of a stream that nobody reads any more."""
    pool.shutdown(wait=False)
    file.close()


class OnDisk:
    """A matrix of a layer in a `Stream`; exact where the checkpoint was bfloat16.

    Args:
        stream: the file.
        layer: the layer's number in it.
        at: where the matrix begins in the layer, in bytes.
        shape: (outputs, inputs), or more dimensions.
    """

    def __init__(self, stream: Stream, layer: int, at: int, shape: tuple[Any, ...]) -> None:
        self.stream, self.number, self.at, self.shape = stream, layer, at, shape
        self.size = 2 * math.prod(shape)
        self.bytes = 0
        """What it takes in memory while nobody reads it."""

    def wide(self) -> Tensor:
        """Reads, and widens."""
        return self.rows(0, math.prod(self.shape[:-1])).view(self.shape)

    def rows(self, first: int, last: int) -> Tensor:
        """Reads and widens some rows, all but the last dimension taken as one."""
        return self._narrow(first, last).float()

    def rounded(self) -> Tensor:
        """Reads, and gives the weight in 16 bits; to be used before another layer is read."""
        return self._narrow(0, math.prod(self.shape[:-1])).view(self.shape)

    def _narrow(self, first: int, last: int) -> Tensor:
        row = 2 * self.shape[-1]
        data = self.stream.layer(self.number)[self.at + first * row : self.at + last * row]
        return data.view(torch.bfloat16).view(last - first, -1)
