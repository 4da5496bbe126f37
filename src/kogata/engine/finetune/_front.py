"""What prompt and prefix tuning have in common: something trained stands before every text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.finetune._common import Tuning, unfit
from kogata.nn.spec import ModelSpec

Encode = Callable[[str], list[int]]


class FrontSettings(VariantSettings):
    """What stands before every text."""

    tokens: int = Field(default=20, ge=1, le=512, description="positions that it takes before every text")
    text: str | None = Field(
        default=None,
        min_length=1,
        description="instruction that it starts as, cut or repeated to its length; default: tokens drawn "
        "from the vocabulary",
    )


def first_ids(spec: ModelSpec, settings: FrontSettings, seed: int, encode: Encode) -> Any:
    """Gives the ids [tokens] that training starts from."""
    import torch

    ids = [] if settings.text is None else encode(settings.text)
    if not ids:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, spec.vocab_size, (settings.tokens,), generator=generator)
    times = -(-settings.tokens // len(ids))
    return torch.tensor((ids * times)[: settings.tokens])


def tune(
    decoder: Any, front: Any, ids: Any, named: list[tuple[str, Any]], save: Callable[[Path, str | None], None]
) -> Tuning:
    """Freezes the decoder and puts the front, as a text's ids start it, on it."""
    decoder.requires_grad_(False)
    front.to(decoder.embed.weight.device)
    front.begin(decoder, ids.to(decoder.embed.weight.device))
    decoder.front = front
    return Tuning(groups=[(named, 1.0)], first=0, save=save)


def write(folder: Path, base: str | None, kind: str, sizes: dict[str, Any], vectors: Any) -> None:
    """Writes peft's format."""
    from kogata.engine.adapters import write_adapter

    write_adapter(
        folder, kind, base, {"num_transformer_submodules": 1, **sizes}, {"prompt_embeddings": vectors}
    )


def read(config: dict[str, Any], tensors: dict[str, Any], width: int, where: str) -> Any:
    """Takes the vectors [tokens, width] out of an adapter's tensors.

    Raises:
        DataError: they are not there, or for another model.
    """
    vectors = tensors.get("prompt_embeddings")
    count = int(config.get("num_virtual_tokens") or 0)
    if vectors is None or list(vectors.shape) != [count, width] or len(tensors) != 1:
        found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise unfit(where, found, f"prompt_embeddings [{count}, {width}] alone")
    return vectors.float()
