"""Keys: what an artifact's content depends on, hashed."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from kogata.core.paths import expand_input, hash_files
from kogata.core.registry import PACKAGE, registry
from kogata.core.stage import Stage

_FLOORS = ("nn", "engine", "stages")

Address = tuple[str | int, ...]
"""Where a setting stands: `("rules", "classifier", "positives")`; a number counts the items of a list."""


def key_of(
    name: str,
    stage: Stage,
    inputs: Mapping[str, str | list[str] | None],
    *,
    seed: int,
    world: int,
    device: str,
    clock: Mapping[str, Any] | None,
    content: Mapping[Address, str],
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
        content: setting → hash of the outside files it names.
    """
    settings = stage.model_dump(mode="json")
    for (*outer, last), digest in content.items():
        place: Any = settings
        for part in outer:
            place = place[part]
        place[last] = f"content:{digest}"
    for field in stage.cost_only:
        settings.pop(field, None)
    parts: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "code": code_of(name),
        "settings": settings,
        "inputs": dict(inputs),
    }
    if stage.packages:
        parts["packages"] = {package: package_version(package) for package in stage.packages}
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


def outside_content(stage: Stage) -> dict[Address, str]:
    """Hashes the files that a stage's `InputPath` settings name, setting by setting, however deep they stand.

    Raises:
        DataError: a path names nothing.
    """
    found: dict[Address, str] = {}
    for address, value in _path_settings(stage, ()):
        texts = list(_texts(value))
        if any(map(_is_path, texts)):
            total = hashlib.sha256()
            for text in texts:
                # What is no path beside one, such as a hub's name, stands for itself.
                part = hash_files(expand_input(text)) if _is_path(text) else f"text:{text}"
                total.update(part.encode("utf-8", "surrogatepass") + b"\0")
            found[address] = total.hexdigest()
    return found


def settings_without_paths(stage: Stage) -> dict[str, Any]:
    """Gives a stage's settings, and in place of files outside the store that there is one."""
    settings = stage.model_dump(mode="json")
    for (*outer, last), value in _path_settings(stage, ()):
        if any(map(_is_path, _texts(value))):
            place: Any = settings
            for part in outer:
                place = place[part]
            place[last] = "(files)"
    return settings


def _path_settings(model: BaseModel, at: Address) -> Iterator[tuple[Address, Any]]:
    """Yields the settings marked as paths, with where they stand; a hub's name may be among them."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if _marked((info.annotation, *info.metadata)) and not isinstance(value, BaseModel):
            yield (*at, name), value
        else:
            yield from _inner_settings(value, (*at, name))
    # A plug-in's variant lies among the extras of a `Choice`.
    for name, value in (model.__pydantic_extra__ or {}).items():
        yield from _inner_settings(value, (*at, name))


def _inner_settings(value: Any, at: Address) -> Iterator[tuple[Address, Any]]:
    if isinstance(value, BaseModel):
        yield from _path_settings(value, at)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _inner_settings(item, (*at, name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _inner_settings(item, (*at, number))


def _marked(types: Iterable[Any]) -> bool:
    """Says whether a type is marked as a path, also inside a union, a list or a mapping."""
    return any(part == "input_path" or _marked(get_args(part)) for part in types)


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts of a setting: itself, its items, the names and items of a mapping."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (f"{name}:", *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


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
    """Lists the Kogata modules a module imports anywhere, variants' folders included; not those for types."""
    found: list[str] = []
    body = [part for part in ast.parse(_source(module)).body if not _for_types(part)]
    for node in (inner for part in body for inner in ast.walk(part)):
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


def _for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _ours(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("kogata.") for name in names if name.startswith("kogata.")]


def _folder(folder: str) -> list[str]:
    return [
        path.stem for path in PACKAGE.joinpath(*folder.split(".")).glob("*.py") if path.stem != "__init__"
    ]
