"""What every method of fine-tuning gives back and is given. Imports no torch: plans read the methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from kogata.core.errors import DataError, RecipeError
from kogata.core.registry import registry
from kogata.core.variants import VariantSettings
from kogata.nn.ffns import GATED
from kogata.nn.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

FOLDER = "engine.finetune"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a method computes, for forecasts."""

    trained: int
    """Weights that are trained."""
    first: int = 0
    """The lowest layer with something trained; what lies below has no backward pass."""
    dense: int = 0
    """Weights of matrices whose own gradient is computed."""
    added: int = 0
    """Weights of the matrices that are added."""
    rank_floats: int = 0
    """Floats per token that the added parts keep for their backward pass."""
    floats: int = 0
    """Other floats that are held: what chooses weights, and where the chosen ones lie."""
    steps_before: int = 0
    """Steps' worth of work before the first one."""
    best: bool = True
    """Whether the best weights so far are held: where there are held-out rows."""
    foreign: bool = False
    """Whether transformers' module is trained."""


@dataclass(kw_only=True)
class Tuning:
    """A model made ready by a method."""

    groups: Sequence[tuple[Sequence[tuple[str, Tensor]], float]]
    """Trained tensors by name, with the factor on the learning rate."""
    first: int
    """The lowest layer with something trained."""
    save: Callable[[Any, str | None], None] | None = None
    """Writes (folder, the base's name) in peft's format; None where the whole model is what is made."""
    begin: Callable[[Callable[[int], None], Path], None] | None = None
    """Chooses what is trained before the first step; gets what computes gradients of so many batches, and
    the file that a resumed run finds the choice in."""

    def named(self) -> list[tuple[str, Tensor]]:
        """Lists everything trained, by name."""
        return [item for group, _ in self.groups for item in group]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One linear layer that may be changed."""

    parent: nn.Module
    name: str
    """Its name in the parent."""
    layer: int
    path: str
    """Its name in our module."""
    pieces: dict[str, tuple[int, int]]
    """The name transformers gives each piece → its first row and last row + 1."""

    @property
    def module(self) -> Any:
        """The layer as it stands there now."""
        return getattr(self.parent, self.name)

    def put(self, module: nn.Module) -> None:
        """Puts another module in its place."""
        setattr(self.parent, self.name, module)


_PEERS = {"mixer.out": "self_attn.o_proj", "ffn.down": "mlp.down_proj", "ffn.up": "mlp.up_proj"}


def targets(decoder: Any) -> Iterator[Target]:
    """Lists the linear layers of the blocks, bottom up, with the names transformers knows their pieces by."""
    for layer, block in enumerate(decoder.layers()):
        for part, peer in (("mixer", "self_attn"), ("ffn", "mlp")):
            module = getattr(block, part)
            fused = module.parts()
            for name, child in module.named_children():
                if not hasattr(child, "in_features"):
                    continue
                pieces: dict[str, tuple[int, int]] = {}
                start = 0
                for piece, rows in fused.get(name, {}).items():
                    pieces[f"model.layers.{layer}.{peer}.{piece}"] = (start, start + rows)
                    start += rows
                if not pieces:
                    whole = _PEERS[f"{part}.{name}"]
                    pieces[f"model.layers.{layer}.{whole}"] = (0, int(child.out_features))
                yield Target(
                    parent=module,
                    name=name,
                    layer=layer,
                    path=f"blocks.{layer}.{part}.{name}",
                    pieces=pieces,
                )


def layer_shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Gives the (outputs, inputs) of each linear layer of a block, by transformers' names."""
    found = {
        "q_proj": (spec.q_width, spec.width),
        "k_proj": (spec.kv_width, spec.width),
        "v_proj": (spec.kv_width, spec.width),
        "o_proj": (spec.width, spec.q_width),
        "up_proj": (spec.ffn_width, spec.width),
        "down_proj": (spec.width, spec.ffn_width),
    }
    if spec.ffn in GATED:
        found["gate_proj"] = (spec.ffn_width, spec.width)
    return found


Top = Literal["all", "third", "auto"] | int
"""`auto` is decided by trials before a run; until then it stands for all."""


def first_layer(top: Top, layers: int) -> int:
    """Gives the lowest layer of the `top` ones."""
    if top in ("all", "auto"):
        return 0
    count = max(1, layers // 3) if top == "third" else int(top)
    return max(0, layers - count)


class UpperLayers(VariantSettings):
    """Settings of a method that may leave the lower layers as they are."""

    top: Top = Field(
        default="all",
        description="so many upper layers, or third; those below are computed once for all epochs; auto: "
        "third where a short trial comes within 2 % of the held-out loss of all, else all",
    )

    def first(self, layers: int) -> int:
        """Gives the lowest layer that is changed, of so many."""
        return first_layer(self.top, layers)

    def lowest(self, spec: ModelSpec, method: str) -> int:
        """Gives the lowest layer that a method changes; see `lowest_layer`."""
        return lowest_layer(self.top, spec, method)


def lowest_layer(top: Top, spec: ModelSpec, method: str) -> int:
    """Gives the lowest layer that a method changes.

    Raises:
        RecipeError: more layers are asked for than the model has, or the family is none of those that can be.
    """
    refuse_family(spec, method)
    if isinstance(top, int):
        refuse_layers(top, spec, f"method.{method}.top")
    return first_layer(top, spec.layers)


def lora_lr(spec: ModelSpec) -> tuple[float, str]:
    """Gives the learning rate of low-rank changes for a width, and why."""
    lr = 5e-4 * (2000 / spec.width) ** 0.781
    return float(f"{lr:.2g}"), f"the usual rate of low-rank changes at width {spec.width}"


def full_lr(spec: ModelSpec) -> tuple[float, str]:
    """Gives the learning rate for a model's own weights, and why."""
    lr = lora_lr(spec)[0] / 10
    return float(f"{lr:.2g}"), f"a tenth of what low-rank changes take at width {spec.width}"


def refuse_layers(asked: int, spec: ModelSpec, where: str) -> None:
    """Refuses more layers than the model has.

    Raises:
        RecipeError: with the number it has.
    """
    if not 1 <= asked <= spec.layers:
        raise RecipeError(
            "the model has not that many layers",
            where=where,
            found=str(asked),
            expected=f"1 to {spec.layers}",
        )


ADAPTABLE = ("llama", "qwen2", "qwen3", "smollm3", "arcee", "gemma3")
"""Families whose linear layers stand in blocks under the names that `targets` gives."""


def refuse_family(spec: ModelSpec, method: str) -> None:
    """Refuses a method for a family of models that it was not made for.

    Raises:
        RecipeError: with what can be done instead.
    """
    if spec.family not in ADAPTABLE:
        raise RecipeError(
            f"`method: {method}` cannot change this family of models yet",
            where="train.finetune, slot model",
            found=spec.family,
            expected=", ".join(ADAPTABLE),
            remedy="train every weight: `method: full`",
        )


def merges(method: str | None) -> bool:
    """Says whether what a method makes can be written into the model's weights."""
    if method not in registry.variant_names(FOLDER):
        return True
    return getattr(registry.variant(FOLDER, method), "MERGES", True)


def refuse_merge(method: str | None, where: str, remedy: str) -> None:
    """Refuses to make a whole model of an adapter that is no change of weights.

    Raises:
        RecipeError: with what can be done instead.
    """
    if not merges(method):
        raise RecipeError(
            f"what `method: {method}` trains cannot be written into the model's weights",
            where=where,
            found="an adapter that stands beside the weights",
            expected="a method that changes weights: lora, ia3, sparse",
            remedy=remedy,
        )


def refuse_modules(config: Mapping[str, Any], where: str, what: str) -> None:
    """Refuses a saved adapter that holds whole modules beside the `what` of the linear layers.

    Raises:
        DataError: with what can be done instead.
    """
    if config.get("modules_to_save"):
        raise DataError(
            "the adapter holds what cannot be read here",
            where=f"{where}: modules_to_save",
            found=f"whole modules beside the {what}",
            expected=f"{what} of the blocks' linear layers alone",
            remedy="merge it with peft and read the merged model",
        )


def unfit(where: str, found: str, expected: str) -> DataError:
    """Says that a saved adapter is for another model."""
    return DataError(
        "the adapter is for another model",
        where=where,
        found=found,
        expected=expected,
        remedy="read the model that it was trained on",
    )


def refuse_left(left: Mapping[str, Any], where: str) -> None:
    """Refuses a saved adapter of which tensors are left over.

    Raises:
        DataError: with their names.
    """
    if left:
        found = f"{len(left)} tensors without a layer here: {', '.join(sorted(left)[:3])}"
        raise unfit(where, found, "changes of the linear layers in this model's blocks")
