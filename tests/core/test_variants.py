"""A setting that names one variant of a folder: by name, with settings, of a plug-in; and its mistakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from kogata.core.registry import registry
from kogata.core.variants import Choice
from kogata.report.cards import settings_of


class Way(Choice, folder="engine.mix"):
    """How it is done."""


class Outer(BaseModel):
    """Settings around it."""

    way: Way = Field(default_factory=lambda: Way.of("unimax"), description="the way of doing it")


@pytest.mark.parametrize(
    ("given", "name", "settings", "written"),
    [
        ({}, "unimax", {}, "unimax"),
        ({"way": "temperature"}, "temperature", {"temperature": 3.3}, {"temperature": {"temperature": 3.3}}),
        ({"way": {"temperature": {"temperature": 2}}}, "temperature", {"temperature": 2.0}, None),
        ({"way": {"temperature": None}}, "temperature", {"temperature": 3.3}, None),
        ({"way": {"unimax": None, "temperature": {}}}, "temperature", {"temperature": 3.3}, None),
    ],
)
def test_by_name_or_with_settings(given: dict, name: str, settings: dict, written: Any) -> None:
    made = Outer.model_validate(given)
    assert made.way.name == name and made.way.settings.model_dump() == settings
    assert made.way.variant.weigh is registry.variant("engine.mix", name).weigh
    dumped = made.model_dump(mode="json")
    assert Outer.model_validate(dumped) == made
    if written is not None:
        assert dumped == {"way": written}
    again = made.model_dump(exclude_unset=True)
    assert Outer(**again) == made


@pytest.mark.parametrize(
    ("given", "where", "told"),
    [
        ("unimx", ("way",), "did you mean 'unimax'"),
        ({"unimax": {}, "temperature": {}}, ("way",), "one variant"),
        ({}, ("way",), "one variant"),
        ({"temperature": {"temprature": 2}}, ("way", "temperature", "temprature"), "not permitted"),
        ({"temperature": {"temperature": 0}}, ("way", "temperature", "temperature"), "greater"),
        ("explicit", ("way", "explicit", "weights"), "required"),
        (3, ("way",), "dictionary"),
    ],
)
def test_mistakes_are_told_where_they_stand(given: Any, where: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"way": given})
    first = caught.value.errors()[0]
    assert first["loc"] == where and told in first["msg"]


def test_schema_and_cards_know_every_variant_s_settings() -> None:
    schema = Outer.model_json_schema()
    names, settings = schema["$defs"]["Way"]["anyOf"]
    assert names["enum"] == registry.variant_names("engine.mix")
    assert set(settings["properties"]) == set(names["enum"]) and settings["maxProperties"] == 1
    found = {item.name: item for item in settings_of(Outer)}
    assert found["way"].default == "unimax" and "temperature" in found["way"].type
    assert found["way.temperature.temperature"].default == "3.3"
    assert found["way.unimax"].description.startswith("Splits the text evenly")


def test_a_plug_in_s_variant_is_accepted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(BaseModel):
        """Settings of the plug-in's way."""

        how: int = 1

    monkeypatch.setitem(registry._variants, "engine.mix", {"mine": SimpleNamespace(Settings=Mine)})
    made = Outer(way={"mine": {"how": 3}})  # type: ignore[arg-type]
    assert made.way.name == "mine" and made.way.settings.how == 3
    assert Outer.model_validate(made.model_dump(mode="json")).way.settings.how == 3
    with pytest.raises(ValidationError):
        Outer(way={"mine": {"how": "x"}})  # type: ignore[arg-type]
