"""The JSON Schema of recipes, so that editors complete and check them while they are typed."""

from __future__ import annotations

import inspect
from typing import Any

from kogata.core.amounts import Budget
from kogata.core.registry import registry
from kogata.core.stage import Stage
from kogata.runtime.draft import LARGEST_SEED, load_installed_plugins

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Gives the JSON Schema of a recipe, every known stage with its settings and their descriptions."""
    load_installed_plugins()
    definitions: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    bare: list[str] = []
    for name in registry.stage_names():
        stage = registry.stage(name)
        definitions[name] = _settings(name, stage, definitions)
        sentence = _sentence(stage)
        value: dict[str, Any] = {"$ref": f"#/$defs/{name}", "description": sentence}
        if not definitions[name].get("required"):
            # `- data.dedup` and `data.dedup:` alone say: with its defaults.
            bare.append(name)
            value = {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}], "description": sentence}
        entries.append(
            {
                "type": "object",
                "description": sentence,
                "properties": {name: value},
                "required": [name],
                "additionalProperties": False,
            }
        )
    if bare:
        entries.append({"enum": bare, "description": "A stage with its defaults."})
    definitions["budget"] = _inlined("budget", Budget.model_json_schema(), definitions)
    return {
        "$schema": DIALECT,
        "title": "Kogata recipe",
        "description": "A list of stages, and what may be spent on them.",
        "type": "object",
        "required": ["stages"],
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "description": "What the run's folder is called; default: the file's name.",
            },
            "budget": {
                "$ref": "#/$defs/budget",
                "description": "What may be spent; what is absent does not bind.",
            },
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": LARGEST_SEED,
                "default": 0,
                "description": "The same seed, the same result; the split of the data does not depend on it.",
            },
            "plugins": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Python files that register stages and variants, relative to the recipe.",
            },
            "stages": {
                "type": "array",
                "minItems": 1,
                "items": {"oneOf": entries},
                "description": "What is done, in order; a stage takes what earlier ones made.",
            },
        },
        "$defs": definitions,
    }


def _settings(name: str, stage: type[Stage], definitions: dict[str, Any]) -> dict[str, Any]:
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    try:
        made = _inlined(name, stage.model_json_schema(), definitions)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        # A plug-in's field of a type JSON does not know: its name still completes.
        made = {"type": "object", "properties": {field: {} for field in stage.model_fields}}
        made["additionalProperties"] = False
    made["title"] = name
    made["description"] = inspect.cleandoc(stage.__doc__ or "")
    properties = made.setdefault("properties", {})
    for field in properties.values():
        field.pop("title", None)
    properties["as"] = {
        "type": "string",
        "pattern": r"^[^\W\d][\w-]*$",
        "description": "A name of its own for this stage; needed when the stage is used twice.",
    }
    if stage.takes:
        slots: dict[str, Any] = {}
        for slot, facts in stage.takes.items():
            label: dict[str, Any] = {"type": "string"}
            if facts.many:
                label = {"anyOf": [label, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
            label["description"] = f"Label of the stage that makes it: {' or '.join(facts.kinds)}."
            slots[slot] = label
        properties["use"] = {
            "type": "object",
            "properties": slots,
            "additionalProperties": False,
            "description": "Which earlier stage fills which input; needed where several could.",
        }
    if stage.elastic:
        properties["share"] = {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "This stage's part of the time that the others leave.",
        }
    return made


def _inlined(name: str, made: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Moves a schema's own definitions beside the others, under names that cannot meet."""
    own: dict[str, Any] = made.pop("$defs", {})

    def renamed(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                key: f"#/$defs/{name}.{value.rsplit('/', 1)[-1]}"
                if key == "$ref" and isinstance(value, str)
                else renamed(value)
                for key, value in part.items()
            }
        return [renamed(item) for item in part] if isinstance(part, list) else part

    for inner, body in own.items():
        definitions[f"{name}.{inner}"] = renamed(body)
    return renamed(made)


def _sentence(stage: type[Stage]) -> str:
    text = " ".join(inspect.cleandoc(stage.__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".") + "." if text else ""
