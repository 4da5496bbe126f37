"""The peer of bench_classify: SetFit on a few rows of each label, a fixed wall-clock.

What a user would write, with its defaults (pairs by oversampling, batches of 16 pairs, a logistic head).
The steps are chosen so that training, pairs and head included, fills the seconds; loading and importing are
not counted, nor are the runs that measure its pace, all of which favours the peer.

    python setfit_few.py ROWS.json ENCODER OUT SECONDS LR SEED
"""

import json
import os
import resource
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import setfit
import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

rows_path, encoder, out = sys.argv[1:4]
seconds, lr, seed = float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
with open(rows_path, encoding="utf-8") as file:
    rows = json.load(file)
train = Dataset.from_dict({"text": rows["train"]["text"], "label": rows["train"]["label"]})


def trained(steps: int) -> tuple[SetFitModel, float]:
    """Trains a fresh model for so many steps; gives it and the seconds of training alone."""
    torch.manual_seed(seed)
    model = SetFitModel.from_pretrained(encoder)
    settings = TrainingArguments(
        output_dir=out,
        batch_size=16,
        num_epochs=1,
        max_steps=steps,
        body_learning_rate=lr,
        seed=seed,
        report_to="none",
        show_progress_bar=False,
        logging_strategy="no",
        save_strategy="no",
    )
    trainer = Trainer(model=model, args=settings, train_dataset=train)
    start = time.perf_counter()
    trainer.train()
    return model, time.perf_counter() - start


# The first call warms up and is not looked at.
_, short, long = (trained(steps)[1] for steps in (2, 4, 24))
pace = max(1e-3, (long - short) / 20)
steps = max(1, int((seconds - (short - 4 * pace)) / pace))
model, took = trained(steps)
guesses = [int(guess) for guess in model.predict(rows["test"]["text"])]
right = [guess == label for guess, label in zip(guesses, rows["test"]["label"], strict=True)]
print(
    json.dumps(
        {
            "accuracy": sum(right) / len(right),
            "wall_seconds": took,
            "steps": steps,
            "lr": lr,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "versions": {"setfit": setfit.__version__, "torch": torch.__version__},
        }
    )
)
