"""Trains keys and values that every layer's attention sees before those of the text.

Pays when: many small tasks are kept for one model, and `prompt` learns too little.
Hurts when: much is to be learned: `lora` reaches a lower loss in the same time. It cannot be merged:
    `evaluate`, `kogata chat`, Python and peft use it with the model.
Cost: about the time of `lora`; every token attends to so many keys more.
Source: prefix tuning (arXiv 2101.00190); starts as the keys and values of a text, which learns better than
    from zero or at random (the same, section 7.4).
Measured here: not yet measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogata.core.errors import RecipeError
from kogata.engine.finetune import _front
from kogata.engine.finetune._common import Tuning, Work, refuse_family
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "PREFIX_TUNING"
MERGES = False
ENCODES = True
"""Wants what turns a text into ids."""


class Settings(_front.FrontSettings):
    """What stands before every text."""


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    refuse_family(spec, "prefix")
    _refuse_windows(spec)
    return Work(trained=settings.tokens * 2 * spec.kv_width * spec.layers)


def _refuse_windows(spec: ModelSpec) -> None:
    """Refuses a model of which some layers do not see a text's beginning.

    Raises:
        RecipeError: with what can be done instead.
    """
    others = {spec.mixer(layer) for layer in range(spec.layers)} - {"full"}
    if others:
        raise RecipeError(
            "`method: prefix` needs layers that see a text's beginning",
            where="train.finetune, slot model",
            found=f"layers with {', '.join(sorted(others))} attention",
            expected="full attention in every layer",
            remedy="`method: prompt` stands before the text itself; `method: lora` needs nothing before it",
        )


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits."""
    return True


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return 5e-3, "the usual rate of keys and values"


def apply(decoder: Any, settings: Settings, seed: int, encode: _front.Encode) -> Tuning:
    """Puts keys and values before every text's and freezes everything else."""
    import torch

    from kogata.nn.adapters.front import Prefix

    spec = decoder.spec
    front = Prefix(settings.tokens, spec.layers, spec.kv_heads, spec.head_dim)

    def save(folder: Path, base: str | None) -> None:
        sizes = {
            "num_virtual_tokens": settings.tokens,
            "token_dim": spec.kv_width,
            "num_attention_heads": spec.kv_heads,
            "num_layers": spec.layers,
            "prefix_projection": False,
        }
        # peft lays a position's keys and values of all layers in one row.
        whole = torch.stack([own.detach() for own in front.memory]).permute(2, 0, 1, 3, 4)
        _front.write(folder, base, PEFT_TYPE, sizes, whole.reshape(settings.tokens, -1))

    ids = _front.first_ids(spec, settings, seed, encode)
    named = [(f"front.memory.{layer}", own) for layer, own in enumerate(front.memory)]
    return _front.tune(decoder, front, ids, named, save)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, before the decoder's texts.

    Raises:
        DataError: it does not fit the model.
    """
    from kogata.nn.adapters.front import Prefix

    spec = decoder.spec
    _refuse_windows(spec)
    rows = _front.read(config, tensors, spec.layers * 2 * spec.kv_width, where)
    front = Prefix(len(rows), spec.layers, spec.kv_heads, spec.head_dim)
    whole = rows.view(len(rows), spec.layers, 2, spec.kv_heads, spec.head_dim).permute(1, 2, 0, 3, 4)
    for own, found in zip(front.memory, whole, strict=True):
        own.data = found.contiguous()
    decoder.front = front
