"""Addresses of settings, as `--set` names them: `train.pretrain.lr`, a label's, or a bare `lr`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kogata.core.amounts import Budget
from kogata.core.errors import RecipeError
from kogata.core.registry import PEER_NAMES, suggest
from kogata.core.stage import Stage
from kogata.runtime.explain import places_of
from kogata.runtime.yaml_text import Path_

TOP = ("name", "budget", "seed", "plugins", "stages")
"""What a recipe consists of."""
SETTABLE = ("name", "budget", "seed", "plugins")


@dataclass(frozen=True)
class Entry:
    """One stage of a recipe that is still plain values."""

    index: int
    name: str
    label: str
    model: type[Stage]
    path: Path_
    """Where its settings lie in the recipe."""


def find(address: str, entries: Sequence[Entry], where: str) -> Path_:
    """Gives the path in the recipe that an address names.

    Raises:
        RecipeError: nothing has that name (with the nearest that has), or several things have it.
    """
    parts = [part.strip() for part in address.split(".")]
    if not all(parts):
        raise RecipeError(f"{address!r} is no address", where=where, expected="STAGE.SETTING")
    for length in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:length]), parts[length:]
        owners = [entry for entry in entries if entry.label == head]
        owners = owners or [entry for entry in entries if entry.name == head]
        if not owners:
            continue
        if len(owners) > 1:
            raise _ambiguous(address, [".".join([entry.label, *rest]) for entry in owners], where)
        if not rest:
            fields = list(owners[0].model.model_fields)
            raise RecipeError(
                f"{head!r} is a stage, not a setting of one",
                where=where,
                expected=f"one of {', '.join(f'{head}.{name}' for name in fields)}" if fields else None,
                remedy=f"{head}.SETTING=VALUE; to leave the stage out, --without {head}",
            )
        return (*owners[0].path, *_keys(rest))
    if parts[0] == "recipe" and len(parts) > 1 and parts[1] in SETTABLE:
        return tuple(_keys(parts[1:]))
    return _bare(parts, entries, where)


def _bare(parts: list[str], entries: Sequence[Entry], where: str) -> Path_:
    owners = [entry for entry in entries if parts[0] in entry.model.model_fields]
    top = parts[0] in SETTABLE
    if len(owners) + top > 1:
        names = [".".join([entry.label, *parts]) for entry in owners]
        raise _ambiguous(".".join(parts), [*[".".join(["recipe", *parts])] * top, *names], where)
    if top:
        return tuple(_keys(parts))
    if owners:
        return (*owners[0].path, *_keys(parts))
    raise _unknown(parts, entries, where)


def _keys(parts: Sequence[str]) -> list[str | int]:
    return [int(part) if part.isascii() and part.isdigit() else part for part in parts]


def _ambiguous(address: str, names: list[str], where: str) -> RecipeError:
    return RecipeError(
        f"{address!r} names several settings",
        where=where,
        expected=f"one of {', '.join(names)}",
        remedy="say which; a stage gets a name of its own with `as:`",
    )


def _unknown(parts: list[str], entries: Sequence[Entry], where: str) -> RecipeError:
    address = unicodedata.normalize("NFKC", ".".join(parts))
    known = {entry.label: entry for entry in entries}
    # A nested setting by its last name, a stage by its last name, a peer's name, or simply mistyped.
    last = address.split(".")[-1]
    names: dict[str, str] = {}
    for entry in entries:
        for field in entry.model.model_fields:
            names[f"{entry.label}.{field}"] = field
    meant = {last, PEER_NAMES.get(last, last)}
    deeper = [
        f"{entry.label}.{place}"
        for entry in entries
        for name in meant
        for place in places_of(entry.model, name)
    ]
    near: list[str] = []
    if len(deeper) == 1:
        near = deeper
    elif len(parts) > 1:
        label = suggest(".".join(parts[:-1]), known)
        field = suggest(last, known[label].model.model_fields) if label else None
        near = [f"{label}.{field}"] if field else [f"{label}.{last}"] if label else []
    if not near and len(parts) == 1:
        field = suggest(last, [*dict.fromkeys(names.values()), *SETTABLE])
        near = [full for full, name in names.items() if name == field] or ([field] if field else [])
    return RecipeError(
        f"no setting is called {'.'.join(parts)!r}",
        where=where,
        expected=f"STAGE.SETTING of {', '.join(known) or 'a stage'}, or {', '.join(SETTABLE)}",
        remedy=f"did you mean {' or '.join(map(repr, near[:4]))}?"
        if near
        else "`kogata stages NAME` lists them",
    )


def split(text: str, option: str) -> tuple[str, str]:
    """Splits `NAME=VALUE`.

    Raises:
        RecipeError: there is no `=`, or a full-width one.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or "＝" in name:
        wide = "＝" in text
        raise RecipeError(
            f"{option} needs NAME=VALUE",
            where=f"{option} {text}",
            found="a full-width '＝'" if wide else text,
            remedy=f"{option} {text.replace('＝', '=', 1)}" if wide else _example(option, text),
        )
    return name.strip(), value


def _example(option: str, text: str) -> str:
    if option == "--budget":
        return f"--budget {_part(text) or 'time'}={text.strip('= ') or '5min'}"
    return f"{option} {text.strip('= ') or 'STAGE.SETTING'}=VALUE"


def as_budget(value: Any) -> str | None:
    """Writes a lone amount as a budget: `5min` is `budget: {time: 5min}`."""
    part = _part(value)
    return f"write budget: {{{part}: {value}}}" if part else None


def _part(amount: Any) -> str | None:
    for part in ("time", "memory", "energy"):
        try:
            Budget.model_validate({part: amount})
        except ValueError:
            continue
        return part
    return None


def put(recipe: dict[str, Any], path: Path_, value: Any, where: str) -> None:
    """Sets a value in the plain recipe, making the mappings on the way.

    Raises:
        RecipeError: something on the way is no mapping or list, or the list is too short.
    """
    place: Any = recipe
    for position, key in enumerate(path[:-1]):
        following = path[position + 1]
        inner = _get(place, key, path[: position + 1], where)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and inner == str(following):
            # `method: lora` and then `method.lora.rank=16`.
            inner = {inner: {}}
        elif not isinstance(inner, dict | list):
            raise RecipeError(
                f"{_told(path[: position + 1])!r} holds {inner!r}, which has no settings of its own",
                where=where,
                remedy=f"set it as a whole: {_told(path[: position + 1])}={{{following}: VALUE}}",
            )
        place[key if isinstance(place, list) else str(key)] = inner
        place = inner
    _get(place, path[-1], path, where)
    place[path[-1] if isinstance(place, list) else str(path[-1])] = value


def _get(place: Any, key: str | int, path: Path_, where: str) -> Any:
    if isinstance(place, dict):
        return place.get(str(key))
    if not isinstance(key, int) or key >= len(place):
        raise RecipeError(
            f"{_told(path[:-1])!r} is a list of {len(place)}",
            where=where,
            found=f"position {key!r}",
            expected=f"a position from 0 to {len(place) - 1}" if place else "a whole list: [a, b]",
        )
    return place[key]


def _told(path: Path_) -> str:
    """Leaves out `stages` and the number: what remains is the address."""
    return ".".join(map(str, path[2:] if path[:1] == ("stages",) else path))
