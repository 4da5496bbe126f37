"""The JSON Schema of recipes: complete, without dangling references, and in agreement with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toy_recipes import add_toys, load

from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.core.stage import Stage
from kogata.runtime.schema import schema


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_toys(monkeypatch, tmp_path)


def entry(made: dict[str, Any], name: str) -> dict[str, Any]:
    found = [
        item for item in made["properties"]["stages"]["items"]["oneOf"] if item.get("required") == [name]
    ]
    assert len(found) == 1
    return found[0]["properties"][name]


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [name for value in part.values() for name in references(value)]
    return [name for item in part for name in references(item)] if isinstance(part, list) else []


def test_every_stage_is_in_it_and_it_is_json() -> None:
    made = schema()
    assert json.loads(json.dumps(made)) == made
    for name in registry.stage_names():
        assert f"$ref': '#/$defs/{name}'" in str(entry(made, name))
        assert made["$defs"][name]["additionalProperties"] is False
        for field in registry.stage(name).model_fields:
            assert field in made["$defs"][name]["properties"], f"{name}.{field}"


def test_no_reference_dangles() -> None:
    made = schema()
    for name in references(made):
        assert name.startswith("#/$defs/") and name.removeprefix("#/$defs/") in made["$defs"], name


def test_what_is_said_of_a_stage() -> None:
    made = schema()
    read, train = made["$defs"]["toy.read"], made["$defs"]["toy.train"]
    assert read["required"] == ["path"]
    assert read["properties"]["path"] == {"description": "a file, a folder or a pattern", "type": "string"}
    assert "use" not in read["properties"] and "share" not in read["properties"]
    assert set(train["properties"]["use"]["properties"]) == {"corpus", "model"}
    assert train["properties"]["share"]["maximum"] == 1
    assert train["properties"]["as"]["type"] == "string"
    assert train["properties"]["model"]["$ref"] == "#/$defs/toy.train.Shape"
    assert made["$defs"]["toy.train.Shape"]["properties"]["family"]["enum"] == ["qwen3", "llama"]
    assert entry(made, "toy.dedup")["description"] == "Drops copies."


def test_a_bare_name_is_allowed_where_nothing_is_required() -> None:
    made = schema()
    bare = next(item["enum"] for item in made["properties"]["stages"]["items"]["oneOf"] if "enum" in item)
    assert "toy.dedup" in bare and "toy.read" not in bare
    assert {"type": "null"} in entry(made, "toy.dedup")["anyOf"] and "anyOf" not in entry(made, "toy.read")
    load(text="stages: [toy.dedup]")
    with pytest.raises(RecipeError):
        load(text="stages: [toy.read]")


def test_top_level() -> None:
    made = schema()
    assert made["required"] == ["stages"] and made["additionalProperties"] is False
    assert set(made["properties"]) == {"name", "budget", "seed", "plugins", "stages"}
    assert set(made["$defs"]["budget"]["properties"]) == {"time", "memory", "gpu_memory", "energy", "size"}


def test_a_field_json_does_not_know_hides_no_stage() -> None:
    class Odd(Stage):
        """Has a setting of an odd type."""

        model_config: ClassVar = {"arbitrary_types_allowed": True}
        makes = Kind.MODEL
        path: Path | complex | object = "x"
        thing: type[int] | None = None

    class Stranger:
        pass

    class Odder(Stage):
        """Has one of no type at all."""

        model_config: ClassVar = {"arbitrary_types_allowed": True}
        makes = Kind.MODEL
        thing: Stranger | None = None

    registry._stages |= {"toy.odd": Odd, "toy.odder": Odder}
    made = schema()
    assert {"path", "thing", "as"} <= set(made["$defs"]["toy.odd"]["properties"])
    assert {"thing", "as"} <= set(made["$defs"]["toy.odder"]["properties"])
