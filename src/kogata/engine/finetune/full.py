"""Trains every weight of the model; what comes out is a whole model.

Pays when: there are many rows (tens of thousands), or what is to be learned is far from what the model knows.
Hurts when: rows are few: it forgets more of what the model could do, and takes more time and memory.
Cost: weights, gradients and two averages: 16 bytes a weight; about 1.5 times the products of `lora`.
Source: Biderman et al. 2024 (arXiv 2405.09673): learns more and forgets more than low-rank changes.
Measured here: SmolLM2-135M, GSM8K rows, float32, beside transformers' Trainer: 1.80
[finetune.json:full.speed_over_plain:.2f] times its tokens a second as it comes, 1.29
[finetune.json:full.speed_over_best:.2f] times with its batches of like length. With products in 16 bits
1.77 [finetune.json:bf16.full.speed_over_best:.2f] times its best of four settings, autocast included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kogata.core.variants import VariantSettings
from kogata.engine.finetune._common import Tuning, Work, full_lr
from kogata.nn.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

MAKES = "model"
FOREIGN = True
"""Whether it trains models that only transformers can build."""


class Settings(VariantSettings):
    """`full` has none of its own."""


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    return Work(
        trained=spec.parameters(), dense=spec.matrix_parameters() + spec.vocab_size * spec.width, first=0
    )


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return full_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Makes every weight trained."""
    for parameter in decoder.parameters():
        parameter.requires_grad_(True)
    matrices: list[tuple[str, Tensor]] = list(decoder.named_parameters())
    return Tuning(groups=[(matrices, 1.0)], first=-1)
