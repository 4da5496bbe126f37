"""Cards: a stage's docstring and settings, as a person or a page reads them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.core.stage import SameAs, Stage
from kogata.core.variants import Choice

SECTIONS = ("Pays when", "Hurts when", "Cost", "Source", "Measured here")
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):\s*(.*)$")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a stage."""

    name: str
    type: str
    """In plain words: `integer or auto`."""
    default: str | None
    """As it would stand in a recipe; None when it must be given."""
    description: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a technique does, when it pays and hurts, and how it is set."""

    name: str
    summary: str
    body: str = ""
    takes: dict[str, str] = field(default_factory=dict)
    makes: str = ""
    sections: dict[str, str] = field(default_factory=dict)
    """Section → text: `Pays when`, `Hurts when`, `Cost`, `Source`, `Measured here`."""
    settings: list[Setting] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)


def all_cards() -> list[Card]:
    """Reads the card of every stage, in the order of their names."""
    return [card_of(name) for name in registry.stage_names()]


def card_of(name: str) -> Card:
    """Reads the card of a stage, or of one of its variants by its address (`train.pretrain.sampling.loss`).

    Raises:
        RecipeError: no stage, setting or variant has that name.
    """
    stage_name = _stage_in(name)
    if stage_name is not None and stage_name != name:
        return _variant_card(stage_name, name)
    stage = registry.stage(name)
    summary, body, sections = parse_card(stage.__doc__ or "")
    return Card(
        name=name,
        summary=summary,
        body=body,
        takes={slot: _slot_text(facts) for slot, facts in stage.takes.items()},
        makes=_makes_text(stage),
        sections=sections,
        settings=settings_of(stage),
    )


def _stage_in(address: str) -> str | None:
    """Finds the stage that an address begins with; None where there is none."""
    parts, names = address.split("."), registry.stage_names()
    found = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in found if name in names), None)


def _variant_card(stage_name: str, address: str) -> Card:
    """Reads a variant's card: what its file says, and of it what its settings say."""
    model: type[BaseModel] = registry.stage(stage_name)
    rest, variant, place = address[len(stage_name) + 1 :].split("."), None, stage_name
    while rest:
        setting, *after = rest
        choice = next(_choices(model, setting), None)
        if choice is None or not after:
            names = [name for name in model.model_fields if next(_choices(model, name), None)]
            if choice is not None:
                names = [f"{setting}.{variant}" for variant in registry.variant_names(choice.folder)]
            raise RecipeError(
                f"{place} has no card at {'.'.join(rest)!r}",
                expected=f"one of {', '.join(names)}"
                if names
                else "nothing more: its settings choose no variants",
                remedy=f"`kogata stages {place}` shows every setting",
            )
        variant = registry.variant(choice.folder, after[0])
        model, place, rest = variant.Settings, f"{place}.{setting}.{after[0]}", after[1:]
    summary, body, sections = parse_card(getattr(variant, "__doc__", None) or "")
    said = " ".join(inspect.cleandoc(model.__doc__ or "").split())
    if not sections and said:
        body = f"{body}\n\n{said}".strip()
    return Card(name=address, summary=summary, body=body, sections=sections, settings=settings_of(model))


def _choices(model: type[BaseModel], setting: str) -> Iterator[type[Choice]]:
    """Finds what a setting chooses from, where it names a variant."""
    info = model.model_fields.get(setting)
    waiting = [] if info is None else [info.annotation]
    while waiting:
        kind = waiting.pop(0)
        if inspect.isclass(kind) and not get_args(kind) and issubclass(kind, Choice):
            yield kind
        waiting += get_args(kind)


def parse_card(docstring: str) -> tuple[str, str, dict[str, str]]:
    """Splits a docstring into its first sentence, its body and its sections."""
    paragraphs: list[list[str]] = [[]]
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in inspect.cleandoc(docstring).splitlines():
        head = _SECTION.match(line)
        if head:
            current = sections.setdefault(head[1], [])
            current.append(head[2])
        elif current is not None:
            current.append(line)
        elif line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    texts = [" ".join(map(str.strip, lines)) for lines in paragraphs if lines]
    summary, *body = texts or [""]
    return (
        summary,
        "\n\n".join(body),
        {name: " ".join(" ".join(lines).split()) for name, lines in sections.items()},
    )


def settings_of(model: type[BaseModel]) -> list[Setting]:
    """Lists a settings model's fields; those of nested models follow as `outer.inner`."""
    schema = model.model_json_schema()
    return list(_settings(schema, schema.get("$defs", {}), model, ""))


def _settings(
    schema: dict[str, Any], kinds: dict[str, Any], model: type[BaseModel] | None, prefix: str
) -> Iterator[Setting]:
    required = set(schema.get("required", ()))
    for name, facts in schema.get("properties", {}).items():
        default = None if name in required else as_recipe(_default(facts, model, name))
        text = facts.get("description") or _target(facts, kinds).get("description") or ""
        yield Setting(
            name=f"{prefix}{name}",
            type=type_text(facts, kinds),
            default=default,
            description=" ".join(text.split()),
        )
        inner = _with_settings(_target(facts, kinds))
        if inner.get("properties"):
            yield from _settings(inner, kinds, None, f"{prefix}{name}.")


def _default(facts: dict[str, Any], model: type[BaseModel] | None, name: str) -> Any:
    if "default" in facts:
        return facts["default"]
    field_info = model.model_fields.get(name) if model else None
    if field_info is None:
        return None
    value = field_info.get_default(call_default_factory=True) if not field_info.is_required() else None
    if value is PydanticUndefined:
        return None
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value


def _target(facts: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """Follows the one reference of a field, also through `X or nothing`."""
    if "$ref" in facts:
        return kinds.get(facts["$ref"].rsplit("/", 1)[-1], {})
    found = [part for word in ("anyOf", "oneOf", "allOf") for part in facts.get(word, ()) if "$ref" in part]
    return _target(found[0], kinds) if len(found) == 1 else {}


def _with_settings(target: dict[str, Any]) -> dict[str, Any]:
    """Of what is a name or its settings, as a `Choice` is, gives the settings."""
    return next((part for part in target.get("anyOf", ()) if part.get("properties")), target)


def type_text(facts: dict[str, Any], kinds: dict[str, Any]) -> str:
    """Says in plain words what a field of a JSON Schema takes."""
    if "$ref" in facts:
        target = _target(facts, kinds)
        return "settings" if target.get("type") == "object" else type_text(target, kinds)
    for word in ("anyOf", "oneOf", "allOf"):
        if word in facts:
            parts = [type_text(part, kinds) for part in facts[word] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(parts))
    if "const" in facts:
        return str(facts["const"])
    if "enum" in facts:
        return " or ".join(map(str, facts["enum"]))
    kind = facts.get("type")
    if facts.get("properties"):
        return "settings"
    if kind == "array":
        inner = facts.get("items") or facts.get("prefixItems", [{}])[0]
        return f"list of {type_text(inner, kinds)}"
    if kind == "string" and (facts.get("description") or "").partition(":")[0] in ("time", "bytes", "energy"):
        return facts["description"].partition(":")[0]
    names = {"string": "text", "number": "number", "integer": "integer", "boolean": "true or false"}
    text = names.get(str(kind), "mapping" if kind == "object" else "anything")
    bounds = [
        f"{sign} {facts[word]:g}"
        for word, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if isinstance(facts.get(word), int | float)
    ]  # fmt: skip
    return f"{text} {' and '.join(bounds)}" if bounds else text


def as_recipe(value: Any) -> str:
    """Writes a value as it would stand in a recipe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_recipe, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {as_recipe(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    text = str(value)
    plain = re.fullmatch(r"[\w./@+~-][\w./@+~ -]*", text) and text.lower() not in ("null", "true", "false")
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _slot_text(slot: Any) -> str:
    kinds = " or ".join(map(str, slot.kinds))
    many = "several " if slot.many else ""
    how = " (only as `use` says)" if slot.asked else " (optional)" if slot.optional else ""
    return f"{many}{kinds}{how}"


def _makes_text(stage: type[Stage]) -> str:
    makes = getattr(stage, "makes", None)
    if makes is None:
        return "decided by its settings"
    return f"same as {makes.slot}" if isinstance(makes, SameAs) else str(makes)
