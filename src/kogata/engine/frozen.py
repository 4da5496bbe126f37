"""Outputs of frozen lower layers, kept from the first pass through the data on: later passes start above.

Source: top layers alone reach most of full fine-tuning (arXiv 1911.03090); keeping what lies below, as in
Skip2-LoRA (arXiv 2410.21073).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kogata.engine.rows import Rows

LARGEST_HALF = 3e4
"""Values beyond are kept in float32: half precision ends at 65,504."""


def keep_outputs(packed: Any, rows: Rows, first: int, path: Path) -> KeptOutputs:
    """Opens the file for the outputs of the layers below `first`; one row says which precision holds them.

    Args:
        packed: a `PackedHidden`, or what stands for it.
        rows: whose outputs will be kept.
        first: the lowest trained layer.
        path: of the file.
    """
    batch = rows.pack([0])
    assert batch.documents is not None
    below = getattr(packed, "below", None)
    with torch.no_grad():
        if below is not None:
            x, width = below(batch, first), packed.width
        else:
            x = packed.blocks(packed.decoder.embed(batch.inputs[0]), batch.documents[0], 0, first)
            width = packed.decoder.spec.width
    return KeptOutputs(path, rows, width, half=float(x.abs().max()) < LARGEST_HALF)


class KeptOutputs:
    """Hidden vectors of every row on disk, read and written row by row.

    What is kept is rounded to half precision, and the first pass uses the rounded values too: so a run that
    was killed and resumed computes the same to the last bit. The operating system keeps the file in memory
    where there is room.

    Args:
        path: the file; made when missing.
        rows: whose outputs are kept.
        width: of a hidden vector.
        half: whether half precision holds them; else float32.
    """

    def __init__(self, path: Path, rows: Rows, width: int, half: bool) -> None:
        self.rows, self.width = rows, width
        self.dtype = torch.float16 if half else torch.float32
        self.size = 2 if half else 4
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))

    @property
    def bytes(self) -> int:
        """What all rows take on disk."""
        return int(self.rows.offsets[-1] - len(self.rows)) * self.width * self.size

    def rounded(self, x: Tensor) -> Tensor:
        """Rounds hidden vectors as keeping them does."""
        return x.to(self.dtype).float()

    def write(self, row: int, x: Tensor) -> None:
        """Keeps a row's vectors [T, D]."""
        data = x.to(self.dtype).cpu().contiguous().numpy().tobytes()
        os.lseek(self.file, self._place(row), os.SEEK_SET)
        while data:
            data = data[os.write(self.file, data) :]

    def read(self, row: int) -> Tensor:
        """Gives a row's vectors [T, D], in float32."""
        left = self.rows.inputs(row) * self.width * self.size
        os.lseek(self.file, self._place(row), os.SEEK_SET)
        pieces = []
        while left:
            piece = os.read(self.file, left)
            assert piece, f"row {row} was not kept"
            pieces.append(piece)
            left -= len(piece)
        kind = np.float16 if self.size == 2 else np.float32
        flat = torch.from_numpy(np.frombuffer(b"".join(pieces), dtype=kind).copy())
        return flat.view(-1, self.width).float()

    def close(self) -> None:
        """Closes the file."""
        os.close(self.file)

    def _place(self, row: int) -> int:
        return int(self.rows.offsets[row] - row) * self.width * self.size
