"""A mixer in a user's own file trains without a file of Kogata edited."""

from __future__ import annotations

import json
from pathlib import Path

MINE = '''
import sys

import torch
from torch import nn


class Mixer(nn.Module):
    """Gives each token the mean of those before it."""

    outputs = ("out",)

    def __init__(self, spec, layer):
        super().__init__()
        self.out = nn.Linear(spec.width, spec.width, bias=False)

    def parts(self):
        return {}

    def new_state(self, batch, capacity):
        raise NotImplementedError

    def forward(self, x, place, state=None):
        counts = torch.arange(1, x.shape[1] + 1)[:, None]
        return self.out(x.cumsum(1) / counts)


def register(registry):
    registry.add_variant("nn.attention", "mean", sys.modules[__name__])
'''
RECIPE = """
name: mine
seed: 0
plugins: [mine.py]
stages:
  - data.read: {path: text.txt, heldout: {tail: 0.1}}
  - tokenizer.train: {vocab_size: 270}
  - tokenizer.encode: {}
  - train.pretrain:
      steps: 3
      batch: 128
      context: 64
      model: {family: kogata, layers: 2, width: 32, pattern: [mean, full]}
"""


def test_it_trains(kogata, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    text = "The cat sat on the mat. 猫が座った。\n"
    (tmp_path / "text.txt").write_text("".join(f"{n}: {text}" for n in range(400)), encoding="utf-8")
    kogata("run", "mine.yaml", "--allow-plugins", "--out", "run", cwd=tmp_path)
    rows = (tmp_path / "run" / "receipts.jsonl").read_text(encoding="utf-8").splitlines()
    spec = json.loads(rows[-1])["facts"]["spec"]
    assert spec["mixers"] == ["mean", "full"]
