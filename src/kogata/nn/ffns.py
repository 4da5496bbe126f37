"""Feed-forward parts by name, and their matrices. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from kogata.core.errors import RecipeError
from kogata.core.registry import registry

if TYPE_CHECKING:
    from kogata.nn.spec import ModelSpec

FOLDER = "nn.ffn"
GATED = ("swiglu", "geglu")


def ffn_settings(spec: ModelSpec) -> Any:
    """Gives the settings of the feed-forward part; None where it has none.

    Raises:
        RecipeError: the part is unknown, or cannot be set so.
    """
    if spec.ffn in (*GATED, "relu2"):
        if spec.ffn_settings:
            raise RecipeError(f"{spec.ffn} has no settings", where="model.ffn", found=str(spec.ffn_settings))
        return None
    kind: type[BaseModel] | None = getattr(registry.variant(FOLDER, spec.ffn), "Settings", None)
    if kind is None:
        return None
    try:
        return kind.model_validate(spec.ffn_settings or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(
            "the feed-forward part cannot be set so",
            where=".".join(["model.ffn", spec.ffn, *map(str, first["loc"])]),
            found=str(first.get("input")),
            expected=", ".join(kind.model_fields) if first["type"] == "extra_forbidden" else first["msg"],
        ) from None


def ffn_matrices(spec: ModelSpec, *, active: bool = False) -> list[tuple[int, int]]:
    """Lists rows and columns of its matrices; with `active`, only what one token is multiplied with."""
    inner = (spec.ffn_width, spec.width)
    if spec.ffn in GATED:
        return [inner, inner, (spec.width, spec.ffn_width)]
    if spec.ffn == "relu2":
        return [inner, (spec.width, spec.ffn_width)]
    return registry.variant(FOLDER, spec.ffn).matrices(spec, ffn_settings(spec), active=active)


def ffn_linears(spec: ModelSpec) -> list[tuple[int, int]]:
    """Lists rows and columns of its linear layers, fused matrices as one."""
    if spec.ffn in GATED:
        return [(2 * spec.ffn_width, spec.width), (spec.width, spec.ffn_width)]
    part = None if spec.ffn == "relu2" else registry.variant(FOLDER, spec.ffn)
    given = getattr(part, "linears", None)
    return ffn_matrices(spec) if given is None else given(spec, ffn_settings(spec))
