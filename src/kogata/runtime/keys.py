"""Keys: what an artifact's content depends on, hashed."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kogata.core.paths import expand_input, hash_files
from kogata.core.registry import PACKAGE, registry
from kogata.core.stage import Stage

_FLOORS = ("nn", "engine", "stages")


def key_of(
    name: str,
    stage: Stage,
    inputs: Mapping[str, str | list[str] | None],
    *,
    seed: int,
    world: int,
    device: str,
    clock: Mapping[str, Any] | None,
    content: Mapping[str, str],
) -> str:
    """Hashes everything a step's artifact depends on.

    Args:
        name: the stage's name.
        stage: with every `auto` that planning can choose chosen.
        inputs: slot → digest, or `key:…` of a fused neighbour.
        seed: counts only where the stage is seeded.
        world: processes; counts where training is split over them.
        device: counts where the stage trains.
        clock: run folder and share, where the result depends on the clock.
        content: field → hash of the outside files it names.
    """
    settings = stage.model_dump(mode="json")
    for field, digest in content.items():
        settings[field] = f"content:{digest}"
    parts: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "code": code_of(name),
        "settings": settings,
        "inputs": dict(inputs),
    }
    if stage.seeded:
        parts["seed"] = seed
    if stage.trains:
        parts |= {"torch": package_version("torch"), "device": device}
        if stage.parallel and world > 1:
            parts["world"] = world
    if clock is not None:
        parts["clock"] = dict(clock)
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def outside_content(stage: Stage) -> dict[str, str]:
    """Hashes the files that a stage's `InputPath` settings name, field by field.

    Raises:
        DataError: a path names nothing.
    """
    found: dict[str, str] = {}
    for field, paths in outside_paths(stage).items():
        total = hashlib.sha256()
        for path in paths:
            total.update(hash_files(expand_input(path)).encode())
        found[field] = total.hexdigest()
    return found


def outside_paths(stage: Stage) -> dict[str, list[str]]:
    """Lists the outside paths that a stage's settings name, field by field; hub names are not among them."""
    found: dict[str, list[str]] = {}
    for field, info in type(stage).model_fields.items():
        if "input_path" not in repr(info.metadata) + repr(info.annotation):
            continue
        value = getattr(stage, field)
        values = value if isinstance(value, list | tuple) else [value]
        paths = [item for item in values if isinstance(item, str) and _is_path(item)]
        if paths:
            found[field] = paths
    return found


def _is_path(text: str) -> bool:
    return (
        not text.startswith(("hub:", "hf:"))
        and "://" not in text
        and (text.startswith((".", "~")) or Path(text).is_absolute())
    )


@cache
def package_version(name: str) -> str:
    """Gives an installed package's version without importing it; `none` when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def code_of(name: str) -> str:
    """Names the code a stage's result depends on.

    In a checkout: the hash of the stage's source and of every `nn` and `engine` module it reaches. In an
    installed release: the release. A plug-in's file counts by content.
    """
    plugin = registry.plugin_files.get(name)
    plugins = "".join(sorted(hash_files([path]) for path in set(registry.plugin_files.values())))
    if plugin is not None:
        return hash_files([plugin])
    if not in_checkout():
        release = f"release:{package_version('kogata')}"
        return f"{release}+{hashlib.sha256(plugins.encode()).hexdigest()[:16]}" if plugins else release
    total = hashlib.sha256(plugins.encode())
    for module in sorted(_reached(f"stages.{name}")):
        total.update(module.encode() + b"\0" + _source(module).encode() + b"\0")
    return total.hexdigest()[:32]


def in_checkout() -> bool:
    """Says whether this package lies in a source checkout."""
    return (PACKAGE.parent.parent / "pyproject.toml").is_file() and PACKAGE.parent.name == "src"


def _path_of(module: str) -> Path | None:
    place = PACKAGE.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _source(module: str) -> str:
    path = _path_of(module)
    return path.read_text(encoding="utf-8") if path else ""


def _reached(start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen or _path_of(module) is None:
            continue
        seen.add(module)
        waiting += [item for item in _imports(module) if item.split(".")[0] in _FLOORS]
    return seen


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Lists the Kogata modules a module imports anywhere, variants' folders included."""
    found: list[str] = []
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            found += _ours(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += _ours([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.ClassDef):
            # A `Choice` names its folder of variants: class Method(Choice, folder="engine.mix").
            for word in node.keywords:
                if word.arg == "folder" and isinstance(word.value, ast.Constant):
                    found += [f"{word.value.value}.{item}" for item in _folder(str(word.value.value))]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            named = node.func.attr in ("variant", "variant_names") and isinstance(first, ast.Constant)
            if named and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found += [f"{first.value}.{item}" for item in _folder(first.value)]
    return tuple(found)


def _ours(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("kogata.") for name in names if name.startswith("kogata.")]


def _folder(folder: str) -> list[str]:
    return [
        path.stem for path in PACKAGE.joinpath(*folder.split(".")).glob("*.py") if path.stem != "__init__"
    ]
