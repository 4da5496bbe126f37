"""Checkpoints: everything the next step depends on, written beside and renamed; safetensors and JSON only."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kogata.nn.optim import local

_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One state of a training run."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], keep: int = 2
) -> Path:
    """Writes a checkpoint so that a kill at any moment leaves the last whole one; keeps the newest few."""
    folder.mkdir(parents=True, exist_ok=True)
    place, beside = folder / f"step-{step:09d}", folder / f"writing-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, beside / "state.safetensors"
    )
    content = json.dumps({"step": step, **facts}, ensure_ascii=False, sort_keys=True)
    (beside / "state.json").write_text(content, encoding="utf-8")
    if place.exists():
        shutil.rmtree(place)
    beside.rename(place)
    for old in _found(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load_checkpoint(folder: Path, at: int | None = None) -> Checkpoint | None:
    """Reads the newest checkpoint that is whole, or the one of a step; None when there is none."""
    for place in _found(folder):
        if at is not None and place.name != f"step-{at:09d}":
            continue
        try:
            facts = json.loads((place / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(place / "state.safetensors")
        except (OSError, ValueError, SafetensorError):
            continue
        return Checkpoint(step=int(facts.pop("step")), tensors=tensors, facts=facts)
    return None


def _found(folder: Path) -> list[Path]:
    """Lists the checkpoints, newest first."""
    names = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(names, reverse=True)


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Gives the weights by name, a tied one once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, held in model.state_dict().items():
        tensor = local(held)
        if not tensor.numel() or tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def random_state() -> dict[str, Tensor]:
    """Gives the state of torch's generator."""
    return {"random.torch": torch.get_rng_state()}


def set_random_state(tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `random_state` gave."""
    if "random.torch" in tensors:
        torch.set_rng_state(tensors["random.torch"].to(torch.uint8))
