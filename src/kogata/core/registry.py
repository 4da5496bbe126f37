"""Finds stages and variants by name. A name is a file's path; nobody edits a list.

`stages/data/read.py` is `data.read`; `engine/export/hf.py` is the variant `hf` of `engine.export`.
A plug-in file defines `register(registry)` and calls `registry.add_stage(name, cls)` or
`registry.add_variant(folder, name, object)`; an installed package does the same through the entry
point group `kogata.plugins`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kogata.core.errors import RecipeError
from kogata.core.paths import hash_files
from kogata.core.stage import Stage

PACKAGE = Path(__file__).resolve().parent.parent

PEER_NAMES: dict[str, str] = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "max_iters": "steps",
    "num_iterations": "steps",
    "max_tokens": "tokens",
    "per_device_train_batch_size": "batch",
    "micro_batch_size": "batch",
    "batch_size": "batch",
    "device_batch_size": "batch",
    "total_batch_size": "batch",
    "global_batch_size": "batch",
    "cutoff_len": "context",
    "max_seq_length": "context",
    "max_seq_len": "context",
    "max_length": "context",
    "sequence_len": "context",
    "block_size": "context",
    "model_max_length": "context",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "warmup_iters": "warmup",
    "save_steps": "checkpoint_every",
    "save_interval": "checkpoint_every",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "bf16": "precision",
    "fp16": "precision",
    "dtype": "precision",
    "model_name_or_path": "name",
    "base_model": "name",
    "dataset": "path",
    "data_files": "path",
    "train_file": "path",
    "max_time": "time",
    "time_limit_s": "time",
    "vocab": "vocab_size",
    "n_layer": "layers",
    "n_layers": "layers",
    "depth": "layers",
    "num_hidden_layers": "layers",
    "n_embd": "width",
    "d_model": "width",
    "hidden_size": "width",
    "n_head": "heads",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "ffn_width",
}
"""What the field's other tools call a setting → what it is called here."""


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """Names the candidate most likely meant, peers' names included; None when nothing is near."""
    names = list(candidates)
    known = PEER_NAMES.get(word)
    if known in names:
        return known
    low = word.lower().replace("-", "_")
    folded = {name.lower().replace("-", "_"): name for name in names}
    near = difflib.get_close_matches(low, folded, n=1, cutoff=0.6)
    if near:
        return folded[near[0]]
    tails = [name for name in names if name.split(".")[-1] == low or name.split(".")[0] == low]
    return tails[0] if len(tails) == 1 else None


class Registry:
    """The stages and variants that can be named, ours and those of plug-ins."""

    def __init__(self) -> None:
        self._stages: dict[str, type[Stage]] = {}
        self._variants: dict[str, dict[str, Any]] = {}
        self.plugin_files: dict[str, Path] = {}
        """Stage or `folder/variant` name → the file that registered it."""
        self._loading: Path | None = None
        self._loaded: set[str] = set()
        """Hashes of the plug-in files that were run; a copy of one is the same plug-in."""

    def add_stage(self, name: str, stage: type[Stage]) -> None:
        """Registers a stage of a plug-in; a name that exists is refused."""
        if name in self.stage_names():
            raise RecipeError(f"the plug-in's stage {name!r} already exists", remedy="give it another name")
        self._stages[name] = stage
        if self._loading:
            self.plugin_files[name] = self._loading

    def add_variant(self, folder: str, name: str, thing: Any) -> None:
        """Registers a variant of a plug-in, for example `("nn.attention", "mine", Mine)`."""
        if name in self.variant_names(folder):
            raise RecipeError(
                f"the plug-in's variant {name!r} of {folder} already exists", remedy="give it another name"
            )
        self._variants.setdefault(folder, {})[name] = thing
        if self._loading:
            self.plugin_files[f"{folder}/{name}"] = self._loading

    def stage_names(self) -> list[str]:
        """Lists every stage's name, without importing any."""
        return sorted({*_stage_files(), *self._stages})

    def stage(self, name: str) -> type[Stage]:
        """Gives the stage class of a name.

        Raises:
            RecipeError: no stage has that name; suggests the nearest.
        """
        if name in self._stages:
            return self._stages[name]
        if name not in _stage_files():
            near = suggest(name, self.stage_names())
            raise RecipeError(
                f"unknown stage {name!r}",
                expected=f"one of {', '.join(self.stage_names())}",
                remedy=f"did you mean {near!r}?" if near else "`kogata stages` lists them",
            )
        return _stage_of(importlib.import_module(f"kogata.stages.{name}"))

    def variant_names(self, folder: str) -> list[str]:
        """Lists the variants of a folder such as `engine.export`, without importing any."""
        place = PACKAGE.joinpath(*folder.split("."))
        found = {path.stem for path in place.glob("*.py") if not path.stem.startswith("_")}
        return sorted(found | set(self._variants.get(folder, {})))

    def variant(self, folder: str, name: str) -> Any:
        """Gives a variant: the module of ours, or what a plug-in registered.

        Raises:
            RecipeError: no variant has that name; suggests the nearest.
        """
        if name in self._variants.get(folder, {}):
            return self._variants[folder][name]
        names = self.variant_names(folder)
        if name not in names:
            near = suggest(name, names)
            raise RecipeError(
                f"unknown {folder.split('.')[-1]} {name!r}",
                expected=f"one of {', '.join(names)}",
                remedy=f"did you mean {near!r}?" if near else None,
            )
        return importlib.import_module(f"kogata.{folder}.{name}")

    def load_plugin(self, path: Path) -> None:
        """Runs a plug-in file's `register(registry)` once.

        Raises:
            RecipeError: the file is missing, fails, or defines no `register`.
        """
        path = path.resolve()
        if not path.is_file():
            raise RecipeError(
                "no such plug-in file", where=str(path), remedy="correct `plugins:` in the recipe"
            )
        content = hash_files([path])
        if content in self._loaded:
            return
        spec = importlib.util.spec_from_file_location(f"kogata_plugin_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise RecipeError(
                "the plug-in does not load", where=str(path), found=f"{type(error).__name__}: {error}"
            ) from error
        self._register(module, path)
        self._loaded.add(content)

    def _register(self, module: ModuleType, path: Path) -> None:
        register = getattr(module, "register", None)
        if register is None:
            raise RecipeError(
                "the plug-in registers nothing",
                where=str(path),
                expected="a function register(registry) that calls registry.add_stage or add_variant",
            )
        self._loading = path
        try:
            register(self)
        finally:
            self._loading = None

    def load_installed(self) -> None:
        """Registers the plug-ins of installed packages (entry point group `kogata.plugins`)."""
        from importlib.metadata import entry_points

        for entry in entry_points(group="kogata.plugins"):
            entry.load()(self)


def _stage_of(module: ModuleType) -> type[Stage]:
    found = [
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, Stage) and thing.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} defines {len(found)} stages, expected one"
    return found[0]


@cache
def _stage_files() -> dict[str, Path]:
    root = PACKAGE / "stages"
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(root.rglob("*.py"))
        if not path.stem.startswith("_")
    }


registry = Registry()
"""The registry of this process."""
