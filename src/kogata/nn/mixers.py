"""Mixers by name: what a pattern may name, what each takes, and what it costs. Imports no torch.

A mixer is one file of `nn/attention` or `nn/recurrent`, or what a plug-in registered under one of these
folders. It has

* `Mixer(spec, layer)`, a torch module: `forward(x, place, state)`, `new_state(batch, capacity)`,
  `outputs` (its layers that write into the residual stream) and `parts()` (rows of fused layers);
* `Settings`, a pydantic model, where it has settings (`spec.settings(layer)` hands them to the module);
* `sizes(spec, layer, tokens) -> Sizes`, so that plans can count. Without it the module itself is counted,
  its products with weights alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from kogata.core.errors import RecipeError
from kogata.core.registry import registry, suggest
from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    from kogata.nn.spec import ModelSpec

FOLDERS = ("nn.attention", "nn.recurrent")
NARROW = 0.28
"""Of full attention, from 256 to 4,096 tokens, two Zen 5 cores (`engine/costs.py`)."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What one layer's mixer holds and does."""

    matrices: tuple[tuple[int, int], ...]
    """Rows and columns of its weight matrices."""
    linears: tuple[tuple[int, int], ...] | None = None
    """The same of its linear layers, where several matrices are one layer."""
    vectors: int = 0
    """Its other weights: biases, gains, convolutions."""
    flops: float = 0.0
    """Forward, of one token beside the products with its matrices, averaged over a sequence."""
    slowness: float = 1.0
    """Time of these over the time of as many FLOPs in large products."""
    narrow: float = 1.0
    """Share of that time that is left where factors of products are rounded to 16 bits."""
    cache_floats: int = 0
    """Floats remembered after so many tokens while generating."""
    kept: int = 0
    """Floats of one token that the backward pass needs, beside the mixer's input."""

    @property
    def matrix_parameters(self) -> int:
        """Weights in matrices."""
        return sum(rows * columns for rows, columns in self.matrices)


def names() -> list[str]:
    """Lists every mixer's name, without importing any."""
    return sorted(name for folder in FOLDERS for name in registry.variant_names(folder))


def find(name: str) -> Any:
    """Gives a mixer: the module of ours, or what a plug-in registered.

    Raises:
        RecipeError: there is none of that name; suggests the nearest.
    """
    for folder in FOLDERS:
        if name in registry.variant_names(folder):
            return registry.variant(folder, name)
    near = suggest(name, names())
    raise RecipeError(
        f"unknown mixer {name!r}",
        where="model.pattern",
        expected=f"one of {', '.join(names())}",
        remedy=f"did you mean {near!r}?" if near else None,
    )


def settings_of(name: str, given: dict[str, Any]) -> BaseModel:
    """Checks a mixer's settings and fills in what is left out.

    Raises:
        RecipeError: a setting is unknown or out of its range.
    """
    # Full attention has none, and its file imports torch.
    found = None if name == "full" else find(name)
    kind: type[BaseModel] = getattr(found, "Settings", VariantSettings)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["model.pattern", name, *map(str, first["loc"])])
        known = ", ".join(kind.model_fields) or "no settings"
        raise RecipeError(
            f"the mixer {name} cannot be set so",
            where=field,
            found=str(first.get("input")),
            expected=known if first["type"] == "extra_forbidden" else first["msg"],
        ) from None


def read_pattern(
    pattern: Sequence[Any], layers: int, of: str = "the model's layers"
) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    """Repeats a pattern over the layers: the mixers' names and their settings, one for each layer.

    Args:
        pattern: names, or `{name: settings}`.
        layers: to repeat it over.
        of: what these are, for the message.

    Raises:
        RecipeError: the pattern is empty or longer than the layers, or an entry is not understood.
    """
    if not 0 < len(pattern) <= layers:
        raise RecipeError(
            "the pattern does not fit the layers",
            where="model.pattern",
            found=f"{len(pattern)} entries",
            expected=f"1 to {layers}, {of}",
            remedy="shorten the pattern, or give the model more `layers`",
        )
    entries = [_entry(item) for item in pattern]
    repeated = [entries[layer % len(entries)] for layer in range(layers)]
    return tuple(name for name, _ in repeated), tuple(settings for _, settings in repeated)


def _entry(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise RecipeError(
            "an entry of the pattern is not understood",
            where="model.pattern",
            found=repr(item),
            expected="a mixer's name, or {name: {its settings}}",
        )
    ((name, given),) = item.items()
    return str(name), settings_of(str(name), given or {}).model_dump()


def sizes_of(spec: ModelSpec, layer: int, tokens: int) -> Sizes:
    """Counts what the mixer of one layer holds and does in a sequence of so many tokens."""
    name = spec.mixer(layer)
    if name == "full":
        return full_sizes(spec, tokens)
    found = find(name)
    if hasattr(found, "sizes"):
        return found.sizes(spec, layer, tokens)
    return _counted(found, spec, layer)


def attention_slowness(tokens: int) -> float:
    """Gives how slow torch computes causal attention on a CPU, per FLOP; long sequences are faster.

    Measured at 256, 1,024 and 4,096 tokens, heads of 64, one Zen 3 core: 4.6, 2.8 and 2.1.
    """
    return min(4.83, 2.0 + 725 / tokens)


def full_sizes(spec: ModelSpec, tokens: int) -> Sizes:
    """Counts full causal attention: a token sees half the sequence on average."""
    return Sizes(
        matrices=attention_matrices(spec),
        linears=attention_linears(spec),
        vectors=head_vectors(spec),
        flops=2 * spec.q_width * tokens,
        slowness=attention_slowness(tokens),
        narrow=NARROW,
        cache_floats=2 * spec.kv_width * tokens,
        kept=2 * spec.q_width + 2 * spec.kv_width,
    )


def attention_matrices(spec: ModelSpec) -> tuple[tuple[int, int], ...]:
    """Lists queries, keys, values and output."""
    return (
        (spec.q_width, spec.width),
        (spec.kv_width, spec.width),
        (spec.kv_width, spec.width),
        (spec.width, spec.q_width),
    )


def attention_linears(spec: ModelSpec) -> tuple[tuple[int, int], ...]:
    """Lists the fused layer of queries, keys and values, and the output."""
    return (spec.q_width + 2 * spec.kv_width, spec.width), (spec.width, spec.q_width)


def head_vectors(spec: ModelSpec) -> int:
    """Counts gains of query and key heads, and biases."""
    gains = 2 * spec.head_dim if spec.qk_norm else 0
    return gains + (spec.q_width + 2 * spec.kv_width if spec.qkv_bias else 0)


def seen_on_average(window: int, tokens: int) -> float:
    """Counts the tokens that one sees on average through a window, in a sequence."""
    if tokens <= window:
        return tokens / 2
    return window * (1 - window / (2 * tokens))


def _counted(found: Any, spec: ModelSpec, layer: int) -> Sizes:
    import torch

    with torch.device("meta"):
        module = found.Mixer(spec, layer)
    weights = list(module.parameters())
    matrices = tuple((w.shape[0], w.shape[1]) for w in weights if w.ndim == 2)
    linears = tuple((m.out_features, m.in_features) for m in module.modules() if type(m) is torch.nn.Linear)
    vectors = sum(w.numel() for w in weights if w.ndim != 2)
    kept = sum(rows for rows, _ in matrices)
    return Sizes(matrices=matrices, linears=linears, vectors=vectors, kept=kept)
