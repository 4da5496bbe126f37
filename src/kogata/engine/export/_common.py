"""What every export format gives back and is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.registry import registry


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a file's own runtime made of some texts."""

    loss: float
    """Sum of −log p in nats."""
    tokens: int
    ids: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written: the files to deploy, and what is worth saying about them."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One export format, as its file in this folder states it."""

    name: str
    """As users write it: `gguf-q8_0`."""
    place: str
    """File or folder in the bundle."""
    runtime: str
    tolerance: float
    """Largest rise in bits per byte that is rounding and no fault."""
    refuse: Callable[[dict[str, Any]], str | None]
    forecast_bytes: Callable[[dict[str, Any]], int | None]
    write: Callable[[Path, Path, dict[str, Any]], Written]
    """(model folder, place in the bundle, facts of model and corpus)."""
    score: Callable[..., Scored]
    """(place, texts, end_id=, window=)."""


def format_names() -> list[str]:
    """Lists the formats as users write them."""
    return sorted(name.replace("_", "-", 1) for name in registry.variant_names("engine.export"))


def get_format(name: str) -> Format:
    """Gives a format by the name users write.

    Raises:
        RecipeError: there is none; suggests the nearest.
    """
    module = registry.variant("engine.export", name.replace("-", "_"))
    return module if isinstance(module, Format) else module.FORMAT
