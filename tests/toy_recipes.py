"""Toy stages and recipes of them, for the tests of the loader and the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kogata.core.amounts import Seconds
from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.recipe import Recipe
from kogata.core.registry import registry
from kogata.core.stage import InputPath, Slot, Stage
from kogata.runtime.load import load_recipe


class Read(Stage):
    """Reads text."""

    makes = Kind.CORPUS
    path: InputPath = Field(description="a file, a folder or a pattern")
    heldout: float | str | None = 0.02
    columns: dict[str, str] | None = None


class Dedup(Stage):
    """Drops copies."""

    takes: ClassVar = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CORPUS


class Shape(BaseModel):
    """Says how large the model is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    family: Literal["qwen3", "llama"] = "qwen3"
    parameters: int | Literal["auto"] = "auto"


class Train(Stage):
    """Trains."""

    takes: ClassVar = {
        "corpus": Slot(kinds=(Kind.CORPUS,), many=True),
        "model": Slot(kinds=(Kind.MODEL,), optional=True),
    }
    makes = Kind.MODEL
    elastic = True
    lr: float | Literal["auto"] = "auto"
    steps: int | None = Field(default=None, gt=0)
    time: Seconds | None = None
    model: Shape = Shape()
    formats: tuple[Literal["hf", "gguf"], ...] = ("hf",)
    compile: bool = False
    prompt: str = "x"
    momentum: float = 0.9
    method: str | dict[str, Any] = "full"

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.steps and self.time:
            raise ValueError("give at most one of steps, tokens, epochs, time")
        return self


def add_toys(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Registers the three stages and stands in a folder, until the test ends."""
    stages = {"toy.read": Read, "toy.dedup": Dedup, "toy.train": Train}
    monkeypatch.setattr(registry, "_stages", {**registry._stages, **stages})
    monkeypatch.setattr(registry, "_variants", dict(registry._variants))
    monkeypatch.setattr(registry, "_loaded", set())
    monkeypatch.setattr(registry, "plugin_files", {})
    monkeypatch.chdir(folder)


BASE = """name: n
budget: {time: 10min}
stages:
  - toy.read: {path: a/*.txt}
  - toy.dedup
  - toy.train: {%s}
"""


def load(settings: str = "", *sets: str, text: str | None = None, **options: Any) -> Recipe:
    """Writes a recipe under a Japanese name and loads it."""
    path = Path("小説.yaml")
    path.write_text(text if text is not None else BASE % settings, encoding="utf-8")
    return load_recipe(path, sets, **options)


def told(call: Callable[[], Any]) -> str:
    """Gives the whole message of the RecipeError a call raises."""
    with pytest.raises(RecipeError) as caught:
        call()
    assert caught.value.exit_code == 2
    return str(caught.value)


def message(what: str, at: str, found: str = "", expected: str = "", remedy: str = "") -> str:
    rows = [what, f"  at: {at}"]
    for name, text in (("found", found), ("expected", expected), ("remedy", remedy)):
        rows += [f"  {name}: {text}"] if text else []
    return "\n".join(rows)
