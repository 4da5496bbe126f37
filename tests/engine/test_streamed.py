"""Weights on disk come back exactly, and each layer is there before it is asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from kogata.engine.streamed import OnDisk, Stream


def test_layers_are_read_ahead_both_ways(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "weights.bin")
    made: list[tuple[torch.Tensor, OnDisk]] = []
    for layer in range(5):
        matrices = [torch.randn(3 + layer, 5), torch.randn(7, 2)]
        made += zip([one.bfloat16() for one in matrices], stream.add(matrices), strict=True)
    assert stream.layers == 5 and stream.late == 0
    # Up, down, and again; each layer's matrices several times, as recomputing asks for them.
    for _ in range(2):
        for order in (range(10), reversed(range(10))):
            for number in order:
                narrow, held = made[number]
                for _ in range(2):
                    assert torch.equal(held.wide(), narrow.float())
    assert stream.late == 1, "only the very first layer had to be waited for"
    narrow, held = made[4]
    assert torch.equal(held.wide(), narrow.float()) and stream.late == 2, "a jump reads what it needs"
    stream.close()
