"""Scores a nanochat checkpoint: bits per byte of texts, in windows of 256 tokens that do not overlap.

Twice: a window's first token predicted from the token before it, as all sides are scored; and from its start
token, with which every row of its training began. The better figure is its result.

    python nanochat_score.py CHECKOUT CHECKPOINTS TEXTS.json WINDOW
"""

import json
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from nanochat.checkpoint_manager import build_model, find_last_step  # pyright: ignore[reportMissingImports]

folder, window = sys.argv[2], int(sys.argv[4])
model, tokenizer, _ = build_model(folder, find_last_step(folder), torch.device("cpu"), "eval")
start = tokenizer.get_bos_token_id()
texts = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
size = sum(len(text.encode()) for text in texts)
nats = {"from the token before": 0.0, "from the start token": 0.0}
with torch.no_grad():
    for text in texts:
        ids = tokenizer.encode(text)
        whole = torch.tensor([start, *ids])
        for at in range(0, len(ids), window):
            wanted = whole[at + 1 : at + window + 1]
            for name in nats:
                given = whole[at : at + len(wanted)].clone()
                if name == "from the start token":
                    given[0] = start
                if len(given) == 1:  # Its training path takes no single token; the next one is cut off again.
                    given = given.repeat(2)
                logits = model(given[None])[0, : len(wanted)].float()
                nats[name] += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
found = {name: value / math.log(2) / size for name, value in nats.items()}
print(json.dumps({"bits_per_byte": min(found.values()), "scored": found}))
