"""What several test files share besides fixtures."""

from __future__ import annotations

from pathlib import Path


def quick_settings(recipe: Path) -> list[str]:
    """Gives the `--set` arguments that make a recipe of ours end in seconds, by what stages it has."""
    text = recipe.read_text(encoding="utf-8")
    quick = {
        "train.pretrain": ["train.pretrain.steps=20", "train.pretrain.model.parameters=300000"],
        "tokenizer.train": ["tokenizer.train.vocab_size=1024"],
    }
    settings = [setting for stage, some in quick.items() if stage in text for setting in some]
    return [word for setting in settings for word in ("--set", setting)]
