"""Choices: a setting that names any number of a folder's variants, `rules: {c4: {}, fineweb: {…}}`."""

from __future__ import annotations

from typing import Any

from pydantic import SerializationInfo, model_serializer, model_validator
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from kogata.core.registry import registry, suggest
from kogata.core.variants import Choice


class Choices(Choice):
    """Variants of a folder, each with its settings; written as a mapping, a list of names, or one name.

    A variant set to null, as YAML reads `c4:` with nothing after it, has its defaults; one set to false is
    not there.
    """

    @property
    def chosen(self) -> dict[str, Any]:
        """The variants' settings by name."""
        return self._given()

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            value = dict.fromkeys(value)
        if not isinstance(value, dict):
            return value
        names = registry.variant_names(cls.folder)
        for name in value:
            if name not in names:
                near = suggest(str(name), names)
                hint = f" (did you mean {near!r}?)" if near else ""
                raise ValueError(f"unknown variant {name!r}; expected some of {', '.join(names)}{hint}")
        return {
            name: {} if settings is None else settings
            for name, settings in value.items()
            if settings is not False
        }

    @model_serializer(mode="plain")
    def _written(self, info: SerializationInfo) -> Any:
        return {
            name: settings.model_dump(
                mode=info.mode,
                exclude_unset=info.exclude_unset,
                exclude_defaults=info.exclude_defaults,
                exclude_none=info.exclude_none,
            )
            for name, settings in self.chosen.items()
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler.resolve_ref_schema(handler(core))
        made.pop("title", None)
        for part in made.get("properties", {}).values():
            part.pop("default", None)
        names = {"enum": registry.variant_names(cls.folder)}
        return {
            **made,
            "additionalProperties": False,
            "anyOf": [names, {"type": "array", "items": names}, {"type": "object"}],
        }
