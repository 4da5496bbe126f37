"""The peers of bench_finetune: TRL with peft (`lora`), transformers' Trainer (`full`).

What a careful user would write: float32 and no checkpointing of activations, against both libraries'
defaults, which are many times slower on a processor. Rows come as token ids and labels, so that both sides
train on the same tokens, and are taken in the order of the file: for `grouped` one whose batches are of like
length, as `group_by_length` makes them on a larger data set. `packed` (TRL's) lays them end to end in rows of
512 tokens (of the longest row, if that is more), as many rows a step as hold about as many tokens.
Each of them with `_bf16` runs under autocast. The clock runs over `train()` alone.

    python hf_finetune.py lora|full plain|grouped|packed[_bf16] MODEL ROWS.jsonl OUT LR EPOCHS BATCH
"""

import json
import resource
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

method, setting, folder, rows, out = sys.argv[1:6]
lr, epochs, batch_rows = float(sys.argv[6]), float(sys.argv[7]), int(sys.argv[8])
RANK, ALPHA = 16, 32
half = setting.endswith("_bf16")
setting = setting.removesuffix("_bf16")

with open(rows, encoding="utf-8") as file:
    examples = [json.loads(line) for line in file]
PACK = max(512, *(len(row["input_ids"]) for row in examples))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
packed = setting == "packed"
if packed:
    tokens = sum(len(row["input_ids"]) for row in examples)
    batch_rows = max(1, round(tokens / len(examples) * batch_rows / PACK))
pad = tokenizer.pad_token_id or 0
options = {
    "output_dir": out + "-trainer",
    "use_cpu": True,
    "bf16": half,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": batch_rows,
    "num_train_epochs": epochs,
    "learning_rate": lr,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 0,
    "train_sampling_strategy": "sequential",
}
step_ends: list[float] = []
step_tokens: list[int] = []


class Watch(TrainerCallback):
    """Notes when each step ends."""

    def on_step_end(self, args, state, control, **more):
        """Is called by the trainer."""
        step_ends.append(time.perf_counter())


def padded(batch: list) -> dict:
    """Pads a batch to its longest row."""
    longest = max(len(row["input_ids"]) for row in batch)
    found = {}
    for name, filler in (("input_ids", pad), ("labels", -100)):
        filled = [row[name] + [filler] * (longest - len(row[name])) for row in batch]
        found[name] = torch.tensor(filled)
    lengths = torch.tensor([[len(row["input_ids"])] for row in batch])
    found["attention_mask"] = (torch.arange(longest)[None] < lengths).long()
    return found


trainer: Any
if method == "lora":
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**options, packing=packed, max_length=PACK if packed else None),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Watch()],
    )
else:
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=examples,  # type: ignore[arg-type]
        data_collator=padded,
        callbacks=[Watch()],
    )
collate = trainer.data_collator


def counted(batch: list) -> dict:
    """Counts the tokens of a batch, padding left out."""
    step_tokens.append(sum(len(row["input_ids"]) for row in batch))
    return collate(batch)


trainer.data_collator = counted
start = time.perf_counter()
trainer.train()
wall = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
trainer.model.save_pretrained(out)
result = {
    "wall_seconds": wall,
    "step_ends": [moment - start for moment in step_ends],
    "step_tokens": step_tokens[: len(step_ends)],
    "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
    "peak_bytes": peak,
}
print(json.dumps(result))
