"""Trains vectors that stand before every text where the embeddings of an instruction would stand.

Pays when: many small tasks are kept for one model: an adapter is some ten thousand weights.
Hurts when: the model is small: below billions of weights it stays far behind `lora`, and it is touchy about
    its learning rate. It cannot be merged: `evaluate`, `kogata chat`, Python and peft use it with the model.
Cost: about the time of `lora`; every text is longer by its tokens.
Source: prompt tuning (arXiv 2104.08691); starts as a text, as section 3.2 has it.
Measured here: not yet measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogata.engine.finetune import _front
from kogata.engine.finetune._common import Tuning, Work, refuse_family
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
PEFT_TYPE = "PROMPT_TUNING"
MERGES = False
ENCODES = True
"""Wants what turns a text into ids."""


class Settings(_front.FrontSettings):
    """What stands before every text."""


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained."""
    refuse_family(spec, "prompt")
    return Work(trained=settings.tokens * spec.width)


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits."""
    return True


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return 1e-2, "the usual rate of vectors that stand for a text"


def apply(decoder: Any, settings: Settings, seed: int, encode: _front.Encode) -> Tuning:
    """Puts vectors before every text and freezes everything else."""
    from kogata.nn.adapters.front import Prompt

    spec = decoder.spec
    front = Prompt(settings.tokens, spec.width)

    def save(folder: Path, base: str | None) -> None:
        assert front.rows is not None
        sizes = {
            "num_virtual_tokens": settings.tokens,
            "token_dim": spec.width,
            "num_attention_heads": spec.heads,
            "num_layers": spec.layers,
            "prompt_tuning_init": "RANDOM",
        }
        _front.write(folder, base, PEFT_TYPE, sizes, front.rows.detach())

    ids = _front.first_ids(spec, settings, seed, encode)
    return _front.tune(decoder, front, ids, [("front.rows", front.rows)], save)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter, ours or peft's, before the decoder's texts.

    Raises:
        DataError: it does not fit the model.
    """
    from kogata.nn.adapters.front import Prompt

    rows = _front.read(config, tensors, decoder.spec.width, where)
    front = Prompt(*rows.shape)
    assert front.rows is not None
    front.rows.data = rows
    decoder.front = front
