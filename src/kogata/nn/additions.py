"""Additions that no family of transformers has: a logit cap, scales of the residual stream, more tables.

Imports no torch. `cap`: logits are bent to lie between -cap and cap. `scales`: before each layer the residual
stream is multiplied by one learned number, and what entered the first layer is added times another. `values`:
every second layer's values get a row of a table by token (ResFormer, arXiv 2410.17897; as modded-nanogpt has
it). `ngrams`: so many rows by the hash of each two tokens that follow one another are added to the embedding.
All start so that the model computes what it would without them, the cap aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kogata.core.errors import RecipeError

if TYPE_CHECKING:
    from kogata.nn.spec import ModelSpec

ATTENTION = ("full", "window")
"""Mixers whose values can have a table."""


class Additions(BaseModel):
    """What a model of our own family may have beside its layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cap: float | None = Field(default=None, ge=1, description="largest logit, either way; 15 to 30 is usual")
    scales: bool = Field(default=False, description="learned scales of the residual stream and of its start")
    values: bool = Field(default=False, description="a table of values by token in every second layer")
    ngrams: int | None = Field(default=None, ge=64, description="rows for pairs of tokens, found by a hash")

    def value_layers(self, spec: ModelSpec) -> list[int]:
        """Lists the layers whose values have a table: the last attention, and every second before it."""
        if not self.values:
            return []
        attention = [layer for layer in range(spec.layers) if spec.mixer(layer) in ATTENTION]
        return attention[::-1][::2][::-1]

    def parameters(self, spec: ModelSpec) -> int:
        """Counts the weights."""
        tables = len(self.value_layers(spec)) * spec.vocab_size * spec.kv_width
        return tables + (self.ngrams or 0) * spec.width + (2 * spec.layers if self.scales else 0)

    def check(self, spec: ModelSpec) -> None:
        """Refuses what the layers cannot have.

        Raises:
            RecipeError: naming the setting.
        """
        for name in ("scales", "values"):
            if getattr(self, name) and spec.sharing is not None:
                raise RecipeError(
                    "layers with weights in common cannot have this",
                    where=f"model.additions.{name}",
                    found="`sharing` beside it",
                    expected="layers of their own",
                )
        if self.values and not self.value_layers(spec):
            raise RecipeError(
                "no layer can have a table of values",
                where="model.additions.values",
                found=", ".join(sorted({spec.mixer(layer) for layer in range(spec.layers)})),
                expected=f"a layer of {' or '.join(ATTENTION)}",
            )


def read_additions(given: dict[str, Any] | None) -> Additions:
    """Reads the setting.

    Raises:
        RecipeError: it has an unknown field, or a value out of range.
    """
    try:
        return Additions.model_validate(given or {})
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(Additions.model_fields)
        raise RecipeError(
            "the model cannot have such an addition",
            where=".".join(["model.additions", *map(str, first["loc"])]),
            found=str(first.get("input")),
            expected=known if first["type"] == "extra_forbidden" else first["msg"],
        ) from None
