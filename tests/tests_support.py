"""What several test files share besides fixtures."""

from __future__ import annotations

import re
from pathlib import Path

QUICK = {
    "train.pretrain": ["train.pretrain.steps=12", "train.pretrain.model.parameters=300000"],
    "tokenizer.train": ["tokenizer.train.vocab_size=1024"],
    "train.finetune": [
        "train.finetune.epochs=null", "train.finetune.steps=2", "data.read.heldout=0.03",
    ],
    "train.mask": ["train.mask.steps=4", "train.mask.model={family: modernbert, layers: 2, width: 64}"],
    "train.classify": ["train.classify.method=ngrams"],
    "train.tag": ["train.tag.method=features"],
    "evaluate": ["evaluate.sample_tokens=8", "evaluate.answers=2", "evaluate.limit=16kB"],
    "export": ["export.scored_bytes=8kB"],
}  # fmt: skip
"""Settings that make the recipes of ours end in seconds, by the stage that asks for them."""


def quick_settings(recipe: Path) -> list[str]:
    """Gives the `--set` arguments that make a recipe of ours quick, by what stages it has."""
    text = recipe.read_text(encoding="utf-8")
    settings = [setting for stage, some in QUICK.items() if stage in text for setting in some]
    return [word for setting in settings for word in ("--set", setting)]


def quicken(recipe: Path) -> None:
    """Rewrites a recipe of ours with the same settings, for commands that must run as they are printed."""
    text = recipe.read_text(encoding="utf-8")
    text = re.sub(r"(tokenizer\.train: )\{[^}]*\}", r"\1{vocab_size: 1024}", text)
    text = re.sub(
        r"(train\.pretrain: )\{.*\}", r"\1{steps: 12, model: {family: qwen3, parameters: 300000}}", text
    )
    text = re.sub(r"(evaluate: \{)", r"\1limit: 16kB, sample_tokens: 8, answers: 2, ", text)
    text = re.sub(r"(export: \{)", r"\1scored_bytes: 8kB, ", text)
    recipe.write_text(text, encoding="utf-8")
