"""Layers with weights in common: blocks used several times in a row, and a stack run through several times.

Imports no torch. `times`: each block is used so often one after the other (MobileLLM, arXiv 2402.14905,
section 3.4: half the bytes at twice the depth). `loops`: the whole stack is run through so often, and each
loop after the first may have its own change of rank `rank` to every matrix (Relaxed Recursive Transformers,
arXiv 2410.20672). Training costs what as many layers of their own would: only weights are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kogata.core.errors import RecipeError

if TYPE_CHECKING:
    from kogata.nn.mixers import Sizes
    from kogata.nn.spec import ModelSpec


class Sharing(BaseModel):
    """Which layers have their weights in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    times: int = Field(default=1, ge=1, description="uses of each block in a row; 2 is MobileLLM's")
    loops: int = Field(default=1, ge=1, description="runs through the whole stack")
    rank: int = Field(
        default=0, ge=0, description="rank of the change each loop after the first makes to each matrix"
    )

    def order(self, layers: int) -> list[int]:
        """Names the stored block of each layer."""
        stored = layers // (self.times * self.loops)
        return [block for _ in range(self.loops) for block in range(stored) for _ in range(self.times)]

    def loop_of(self, layer: int, layers: int) -> int:
        """Says in which run through the stack a layer lies."""
        return layer // (layers // self.loops)

    def first_layers(self, layers: int) -> list[int]:
        """Lists the first layer of each stored block."""
        return [self.times * block for block in range(layers // (self.times * self.loops))]

    def check(self, spec: ModelSpec) -> None:
        """Refuses layers that cannot be shared out so.

        Raises:
            RecipeError: naming the setting.
        """
        if self.rank and self.loops == 1:
            raise RecipeError("a change by loop needs loops", where="model.sharing.rank",
                              found="one loop", expected="loops: 2 or more")  # fmt: skip
        if self.times * self.loops == 1:
            return
        if spec.layers % (self.times * self.loops):
            raise RecipeError(
                "the layers cannot be shared out", where="model.sharing", found=f"{spec.layers} layers",
                expected=f"a multiple of times · loops = {self.times * self.loops}",
            )  # fmt: skip
        first = self.first_layers(spec.layers)
        given = spec.mixer_settings or ({},) * spec.layers
        for layer, block in enumerate(self.order(spec.layers)):
            one = first[block]
            same = spec.mixer(layer) == spec.mixer(one) != "reuse" and given[layer] == given[one]
            if not same or spec.has_rope(layer) != spec.has_rope(one):
                raise RecipeError(
                    "layers that share weights must mix alike", where="model.sharing",
                    found=f"layer {layer + 1} with {spec.mixer(layer)}",
                    expected=f"{spec.mixer(one)} as in layer {one + 1}",
                    remedy="shorten `pattern`, so that it repeats within the stored blocks",
                )  # fmt: skip

    def change_parameters(self, spec: ModelSpec, sizes: Sequence[Sizes]) -> int:
        """Counts the weights of the loops' changes."""
        if not self.rank or self.loops == 1:
            return 0
        total = 0
        for layer in self.first_layers(spec.layers):
            total += sum(rows + columns for rows, columns in spec.linear_shapes(sizes[layer]))
        return (self.loops - 1) * self.rank * total


def read_sharing(given: dict[str, Any] | None) -> Sharing:
    """Reads the setting.

    Raises:
        RecipeError: it has an unknown field, or a value out of range.
    """
    try:
        return Sharing.model_validate(given or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(
            "the layers cannot be shared so",
            where=".".join(["model.sharing", *map(str, first["loc"])]),
            found=str(first.get("input")),
            expected="times, loops and rank" if first["type"] == "extra_forbidden" else first["msg"],
        ) from None
