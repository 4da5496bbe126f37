"""Scores a LitGPT checkpoint as all sides are scored: bits per byte in windows that do not overlap.

python litgpt_score.py CHECKPOINT TEXTS.json WINDOW
"""

import json
import math
import sys
from pathlib import Path

import torch
from litgpt import GPT, Config, Tokenizer  # pyright: ignore[reportMissingImports]

folder, window = Path(sys.argv[1]), int(sys.argv[3])
model = GPT(Config.from_file(folder / "model_config.yaml"))
saved = torch.load(folder / "lit_model.pth", map_location="cpu", weights_only=False)["model"]
model.load_state_dict({name.removeprefix("_orig_mod."): weight for name, weight in saved.items()})
model.eval()
tokenizer = Tokenizer(folder)
texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
size, nats = sum(len(text.encode()) for text in texts), 0.0
with torch.no_grad():
    for text in texts:
        whole = tokenizer.encode(text, bos=True).long()
        for at in range(0, len(whole) - 1, window):
            wanted = whole[at + 1 : at + window + 1]
            logits = model(whole[at : at + len(wanted)][None])[0].float()
            nats += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
print(json.dumps({"bits_per_byte": nats / math.log(2) / size}))
