"""The peer of bench_novels: Hugging Face Trainer, Llama architecture, AdamW, cosine; a fixed wall-clock.

What a user would write: the steps are chosen so that they fill the seconds, the clock runs over
Trainer.train alone (building the model, importing and loading are not counted, which favours the peer).
With `bf16` products are computed under autocast.

    python hf_pretrain.py DATA.bin VOCAB OUT SECONDS BATCH LAYERS WIDTH HEADS LR SEED [fp32|bf16]
"""

import json
import sys
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

data, vocab, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seconds, lr = float(sys.argv[4]), float(sys.argv[9])
batch, layers, width, heads, seed = (int(word) for word in (*sys.argv[5:9], sys.argv[10]))
half = sys.argv[11:] == ["bf16"]
CONTEXT = 256

tokens = np.fromfile(data, dtype=np.uint16).astype(np.int64)


def fresh_model() -> LlamaForCausalLM:
    """Makes the model with its first weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=int(width * 8 / 3) // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


class Windows(torch.utils.data.Dataset):
    """Windows of CONTEXT tokens in order; Trainer shuffles them."""

    def __len__(self) -> int:
        return len(tokens) // CONTEXT

    def __getitem__(self, index: int) -> dict:
        ids = torch.from_numpy(tokens[index * CONTEXT : (index + 1) * CONTEXT])
        return {"input_ids": ids, "labels": ids}


def step_seconds() -> float:
    """Times real steps, not counted in the peer's clock."""
    model = fresh_model()
    probe = torch.randint(0, vocab, (batch, CONTEXT))
    optimizer = torch.optim.AdamW(model.parameters())
    times = []
    for _ in range(8):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(input_ids=probe, labels=probe).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return sorted(times)[3]


steps = max(1, int(seconds / step_seconds() / 1.05))
model = fresh_model()
options = TrainingArguments(
    out + "-trainer",
    use_cpu=True,
    bf16=half,
    max_steps=steps,
    per_device_train_batch_size=batch,
    learning_rate=lr,
    lr_scheduler_type="cosine",
    warmup_steps=max(10, steps // 20),
    weight_decay=0.1,
    adam_beta2=0.95,
    report_to=[],
    save_strategy="no",
    logging_steps=max(1, steps // 8),
    disable_tqdm=True,
    seed=seed,
)
start = time.perf_counter()
Trainer(model=model, args=options, train_dataset=Windows()).train()
wall = time.perf_counter() - start
model.save_pretrained(out)
print(json.dumps({"wall_seconds": wall, "steps": steps, "tokens_per_second": steps * batch * CONTEXT / wall}))
