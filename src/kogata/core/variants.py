"""Choice: a setting that names one variant of a folder, `method: lora` or `method: {lora: {rank: 16}}`.

A variant is one file of the folder. Its docstring is its card, and it defines `Settings`, a pydantic model,
and what the folder's users call. Nobody keeps a list.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from kogata.core.registry import registry, suggest


class VariantSettings(BaseModel):
    """The settings of one variant; derive `Settings` from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(BaseModel):
    """One variant of a folder with its settings.

    Derive with the folder's name: `class Method(Choice, folder="engine.mix")`. Each variant becomes an
    optional field, so that schema, cards and did-you-mean know its settings; exactly one is given. Variants
    of plug-ins are accepted by name.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    folder: ClassVar[str] = ""

    def __init_subclass__(cls, folder: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if not folder:
            return
        cls.folder = folder
        annotations: dict[str, Any] = dict(cls.__dict__.get("__annotations__", {}))
        for name in registry.variant_names(folder):
            variant = registry.variant(folder, name)
            annotations[name] = variant.Settings | None
            setattr(cls, name, Field(default=None, description=sentence_of(variant)))
        cls.__annotations__ = annotations

    @classmethod
    def of(cls, name: str, **settings: Any) -> Self:
        """Builds the choice of a variant with settings."""
        return cls.model_validate({name: settings})

    @property
    def name(self) -> str:
        """The variant's name."""
        return next(iter(self._given()))

    @property
    def settings(self) -> Any:
        """The variant's settings, an instance of its `Settings`."""
        return next(iter(self._given().values()))

    @property
    def variant(self) -> Any:
        """The variant itself: its module, or what a plug-in registered."""
        return registry.variant(self.folder, self.name)

    def _given(self) -> dict[str, Any]:
        named = {**self.__dict__, **(self.__pydantic_extra__ or {})}
        return {name: value for name, value in named.items() if value is not None}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            return value
        names = registry.variant_names(cls.folder)
        given = {
            name: settings for name, settings in value.items() if settings is not None or len(value) == 1
        }
        for name in given:
            if name not in names:
                near = suggest(str(name), names)
                hint = f" (did you mean {near!r}?)" if near else ""
                raise ValueError(f"unknown variant {name!r}; expected one of {', '.join(names)}{hint}")
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"one variant is chosen at a time; found {found}")
        # `method: {lora: null}`, as YAML reads `lora:` with nothing after it, is lora with its defaults.
        return {name: {} if settings is None else settings for name, settings in given.items()}

    @model_validator(mode="after")
    def _of_plugin(self, info: ValidationInfo) -> Self:
        extra = self.__pydantic_extra__
        for name, settings in dict(extra or {}).items():
            if extra is not None and not isinstance(settings, BaseModel):
                made = registry.variant(self.folder, name).Settings
                extra[name] = made.model_validate(settings, context=info.context)
        return self

    @model_serializer(mode="plain")
    def _written(self, info: SerializationInfo) -> Any:
        inner = self.settings.model_dump(
            mode=info.mode,
            exclude_unset=info.exclude_unset,
            exclude_defaults=info.exclude_defaults,
            exclude_none=info.exclude_none,
        )
        return {self.name: inner} if inner else self.name

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler.resolve_ref_schema(handler(core))
        made.pop("title", None)
        about = made.pop("description", None)
        for part in made.get("properties", {}).values():
            part.pop("default", None)
        inner = {**made, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
        named = {"enum": registry.variant_names(cls.folder)}
        made.clear()
        made |= {"anyOf": [named, inner]} | ({"description": about} if about else {})
        return made


def sentence_of(variant: Any) -> str:
    """Gives what a variant does: the first sentence of its docstring."""
    text = " ".join(inspect.cleandoc(variant.__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")
