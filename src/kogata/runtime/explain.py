"""What pydantic finds wrong, said in our words: where, found, expected, remedy."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kogata.core.errors import KogataError, RecipeError
from kogata.core.registry import suggest
from kogata.runtime.yaml_text import Path_, decode_scalar, flow_yaml

Where = Callable[[Path_, bool], str]
"""Path below the settings, whether the key is meant → where that stands."""

_EXPECTED: dict[str, str] = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number that is not as large",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list, for example [a, b]",
    "tuple_type": "a list, for example [a, b]",
    "set_type": "a list, for example [a, b]",
    "frozen_set_type": "a list, for example [a, b]",
    "dict_type": "settings in braces, for example {{name: value}}",
    "model_type": "settings in braces, for example {{name: value}}",
    "model_attributes_type": "settings in braces, for example {{name: value}}",
    "dataclass_type": "settings in braces, for example {{name: value}}",
    "mapping_type": "settings in braces, for example {{name: value}}",
    "none_required": "null",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
}
_SCALES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


# Fields of a model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the settings models that an annotation names, inside unions and lists too."""
    annotation = getattr(annotation, "__value__", annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> dict[str, FieldInfo]:
    """Gives the settings there are below a path of a model; those of every alternative of a union."""
    models = [model]
    for part in path:
        if isinstance(part, str):
            inner = [one.model_fields[part].annotation for one in models if part in one.model_fields]
            models = [found for annotation in inner for found in models_in(annotation)]
    return {name: info for one in models for name, info in one.model_fields.items()}


def places(model: type[BaseModel], depth: int = 3) -> list[str]:
    """Lists every setting below a model, the nearer ones first: `model`, `model.parameters`."""
    found = list(model.model_fields)
    if depth > 1:
        for field, info in model.model_fields.items():
            for inner in models_in(info.annotation):
                found += [f"{field}.{place}" for place in places(inner, depth - 1)]
    return sorted(dict.fromkeys(found), key=lambda place: place.count("."))


def places_of(model: type[BaseModel], name: str) -> list[str]:
    """Lists where below a model a setting of that name lies: `model.parameters`."""
    return [place for place in places(model) if place.rpartition(".")[2] == name]


def describe(info: FieldInfo | None) -> str | None:
    """Gives a setting's description, its first line."""
    text = (info.description or "") if info else ""
    return " ".join(text.split("\n\n")[0].split()) or None


# Validation


def validate(
    model: type[BaseModel], settings: Mapping[str, Any], *, label: str, where: Where, context: Any = None
) -> Any:
    """Builds a model from settings.

    Args:
        model: a stage's class, or the budget's.
        settings: as typed.
        label: how the whole is addressed, `train.pretrain`.
        where: tells where a part stands.
        context: handed to the validators.

    Raises:
        RecipeError: the first mistake in the order they stand, told with remedy.
    """
    try:
        made = model.model_validate(dict(settings), context=context)
    except ValidationError as error:
        raise _first(error, model, settings, label, where) from None
    except KogataError as error:
        raise type(error)(
            error.what,
            where=error.where or where((), False),
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from None
    _refuse_truths(made, settings, (), label, where)
    return made


def _refuse_truths(
    made: BaseModel, settings: Mapping[str, Any], path: Path_, label: str, where: Where
) -> None:
    """Refuses `lr: true`, which pydantic would take for 1."""
    for name, value in settings.items():
        got = getattr(made, name, None)
        here = (*path, name)
        if isinstance(value, bool) and isinstance(got, int | float) and not isinstance(got, bool):
            raise RecipeError(
                f"wrong value for {address(label, here)}",
                where=where(here, False),
                found=shown(value),
                expected="a number",
            )
        if isinstance(value, Mapping) and isinstance(got, BaseModel):
            _refuse_truths(got, value, here, label, where)


def _first(
    error: ValidationError, model: type[BaseModel], settings: Mapping[str, Any], label: str, where: Where
) -> RecipeError:
    groups: dict[Path_, list[Any]] = {}
    for item in error.errors(include_url=False):
        groups.setdefault(_typed_path(item, settings), []).append(item)
    # Of a union every alternative complains; the one that got furthest is the one that was meant.
    order = list(settings)
    rank = {name: index for index, name in enumerate(order)}
    first = min(groups, key=lambda path: (rank.get(str(path[0]), len(rank)) if path else -1, -len(path)))
    return _told(first, groups[first], model, settings, label, where)


def _typed_path(item: Any, settings: Any) -> Path_:
    """Gives an error's path without pydantic's names of union alternatives."""
    path: list[str | int] = []
    value = settings
    for position, part in enumerate(item["loc"]):
        last = position == len(item["loc"]) - 1
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif not (last and item["type"] == "missing"):
            continue
        path.append(part)
    return tuple(path)


def address(label: str, path: Path_) -> str:
    """Writes an address: `train.pretrain.model.parameters`, `export.formats[0]`."""
    return label + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def shown(value: Any, width: int = 60) -> str:
    """Shows a value as it stands in a recipe, shortened."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        text = repr(value)
    else:
        try:
            text = flow_yaml(value)
        except (TypeError, RecursionError):
            text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def value_at(settings: Any, path: Path_) -> Any:
    """Gives what stands at a path of the settings; None where nothing does."""
    for part in path:
        try:
            settings = settings[part]
        except (KeyError, IndexError, TypeError):
            return None
    return settings


def _told(
    path: Path_, items: list[Any], model: type[BaseModel], settings: Any, label: str, where: Where
) -> RecipeError:
    kinds = {item["type"] for item in items}
    name = address(label, path)
    if kinds == {"missing"}:
        return RecipeError(
            f"{address(label, path[:-1])} needs a value for {path[-1]!r}",
            where=where(path[:-1], True),
            expected=describe(fields_at(model, path[:-1]).get(str(path[-1]))),
            remedy=f"add {path[-1]}: VALUE, or --set {name}=VALUE",
        )
    if "extra_forbidden" in kinds:
        return unknown_setting(path, model, settings, label, where)
    value = value_at(settings, path)
    expected: list[str] = []
    for item in items:
        if item["type"] in ("value_error", "assertion_error"):
            told = str((item.get("ctx") or {}).get("error") or item["msg"])
        else:
            known = _EXPECTED.get(item["type"])
            told = known.format_map(item.get("ctx") or {}) if known else str(item["msg"])
        if told not in expected:
            expected.append(told)
    own = [item for item in items if item["type"] in ("value_error", "assertion_error")]
    if own and len(expected) == 1:
        return _from_validator(expected[0], path, value, name, where)
    # "found the bare value 5; a time needs a unit" inside a union: only what is expected.
    expected = [re.sub(r"^found .*?; ", "", told) for told in expected]
    return RecipeError(
        f"wrong value for {name}",
        where=where(path, False),
        found=shown(value),
        expected=", or ".join(expected),
        remedy=_remedy(value, kinds),
    )


def _from_validator(told: str, path: Path_, value: Any, name: str, where: Where) -> RecipeError:
    parts = re.fullmatch(r"found (.+?); (.+)", told, re.S)
    if parts:
        return RecipeError(
            f"wrong value for {name}",
            where=where(path, False),
            found=parts[1],
            expected=parts[2],
            remedy=f"write {value}s, {value}min or {value}h" if "a time needs a unit" in parts[2] else None,
        )
    found = shown(value) if path else None
    # "unknown format 'onnx'; expected one of …", "at most one of …; found steps and epochs".
    what, _, expected = told.partition("; expected ")
    what, _, named = what.partition("; found ")
    return RecipeError(
        f"{name}: {what}", where=where(path, False), found=named or found, expected=expected or None
    )


def unknown_setting(
    path: Path_, model: type[BaseModel], settings: Any, label: str, where: Where
) -> RecipeError:
    """Builds the error for a setting that does not exist, with the one most likely meant."""
    name = str(path[-1])
    names = list(fields_at(model, path[:-1]))
    near = suggest(unicodedata.normalize("NFKC", name).strip(), names)
    elsewhere = [place for place in places_of(model, name) if place != ".".join(map(str, path))]
    if not near and not elsewhere:
        last = suggest(name, [place.rpartition(".")[2] for place in places(model)])
        elsewhere = places_of(model, last) if last else []
    if elsewhere:
        remedy = f"in {label} it is written {_nested(elsewhere[0], value_at(settings, path))}"
    elif near:
        remedy = f"did you mean {near!r}?"
    else:
        remedy = f"`kogata stages {label}` explains each" if len(path) == 1 else None
    return RecipeError(
        f"unknown setting {name!r} of {address(label, path[:-1])}",
        where=where(path, True),
        expected=f"one of {', '.join(names)}" if names else "nothing",
        remedy=remedy,
    )


def _nested(place: str, value: Any) -> str:
    for part in reversed(place.split(".")):
        value = {part: value}
    return flow_yaml(value)[1:-1]


def _remedy(value: Any, kinds: set[str]) -> str | None:
    numbers = {"float_type", "float_parsing", "int_type", "int_parsing", "int_from_float"}
    if isinstance(value, str) and kinds & numbers:
        narrow = unicodedata.normalize("NFKC", value).strip()
        if narrow != value and not isinstance(decode_scalar(narrow), str):
            return f"type it half-width: {narrow}"
        if re.fullmatch(r"[0-9]+,[0-9]+", narrow):
            thousands = re.fullmatch(r"[1-9][0-9]{0,2},[0-9]{3}", narrow)
            return f"write {narrow.replace(',', '' if thousands else '.')}"
        scaled = re.fullmatch(r"([0-9.]+) ?([kMGT])", narrow)
        if scaled and not isinstance(decode_scalar(scaled[1]), str):
            return f"write {float(scaled[1]) * _SCALES[scaled[2]]:.12g}"
        percent = re.fullmatch(r"([0-9.]+) ?%", narrow)
        if percent and not isinstance(decode_scalar(percent[1]), str):
            return f"write {float(percent[1]) / 100:.12g}"
    if "string_type" in kinds and not isinstance(value, dict | list) and value is not None:
        return f'put it in double quotes: "{shown(value)}"'
    if kinds & {"list_type", "tuple_type", "set_type"} and not isinstance(value, dict) and value is not None:
        return f"write [{flow_yaml(value)}]"
    return None
