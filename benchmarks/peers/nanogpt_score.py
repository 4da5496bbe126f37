"""Scores a nanoGPT checkpoint over the whole validation part, in non-overlapping blocks.

python nanogpt_score.py CHECKOUT CHECKPOINT VAL.bin BLOCK
"""

import json
import sys

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig  # pyright: ignore[reportMissingImports]

saved = torch.load(sys.argv[2], map_location="cpu", weights_only=True)
model = GPT(GPTConfig(**saved["model_args"]))
model.load_state_dict(saved["model"])
model.eval()
ids = torch.from_numpy(np.fromfile(sys.argv[3], dtype=np.uint16).astype(np.int64))
block = int(sys.argv[4])
total, count = 0.0, 0
with torch.no_grad():
    for start in range(0, len(ids) - 1, block):
        x = ids[start : start + block]
        y = ids[start + 1 : start + block + 1]
        logits, _ = model(x[None, : len(y)], y[None])
        total += torch.nn.functional.cross_entropy(logits[0], y, reduction="sum").item()
        count += len(y)
print(json.dumps({"loss": total / count, "characters": count}))
