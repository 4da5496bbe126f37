"""ModelShape: the settings that say what a new model looks like, as stages take them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGB]?)")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


def _count(value: Any) -> Any:
    """Reads `20M` and `1.5k` as counts."""
    if isinstance(value, str) and value != "auto":
        found = _COUNT.fullmatch(value.strip())
        if not found:
            raise ValueError(f"found {value!r}; a count looks like 20M, 500k or 1500000")
        return round(float(found[1]) * _FACTORS[found[2]])
    return value


Count = Annotated[int, BeforeValidator(_count), Field(gt=0)]


Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    Field(
        description="number format of products; bf16 rounds their factors to 16 bits and adds up in 32, on "
        "processors that have such products"
    ),
]


class ModelShape(BaseModel):
    """The shape of the model: a size, or its parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["qwen3", "llama", "qwen2", "smollm3", "arcee", "gemma3", "lfm2", "qwen3_5", "kogata"] = (
        Field(
            default="qwen3",
            description="the graph, which transformers and llama.cpp know by this name (arcee: ungated "
            "ReLU²; gemma3: windows; lfm2: short convolutions; qwen3_5: gated delta rule; kogata: our own)",
        )
    )
    parameters: Literal["auto"] | Count = Field(
        default="auto", description="how many weights, for example 5M; auto fits time, data and vocabulary"
    )
    layers: int | None = Field(default=None, ge=1, description="blocks; with `width` instead of `parameters`")
    width: int | None = Field(default=None, ge=8, description="size of the residual stream")
    heads: int | None = Field(
        default=None, ge=1, description="query heads; by default one for each 64 of width"
    )
    kv_heads: int | None = Field(
        default=None, ge=1, description="key and value heads; by default as many; 1 is multi-query"
    )
    ffn_width: int | None = Field(default=None, ge=8, description="inner size of the feed-forward part")
    tied: bool | None = Field(
        default=None,
        description="one table for embedding and head: a smaller file, but no start from the corpus's pairs",
    )
    pattern: list[str | dict[str, dict[str, Any] | None]] | None = Field(
        default=None,
        min_length=1,
        description="how layers mix tokens, repeated over them: [window, window, window, full], or with "
        "settings [{window: {size: 256}}, full]; docs/architecture.md lists the mixers; "
        "by default the family's",
    )
    ffn: str | dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="the feed-forward part, where the family leaves a choice (kogata): swiglu, relu2, geglu, "
        "or experts, as {experts: {count: 4, top: 1}}",
    )
    sharing: dict[str, int] | None = Field(
        default=None,
        description="layers with weights in common (kogata): {times: 2} uses each block twice in a row, "
        "{loops: 2, rank: 8} runs through all of them twice, with a change of rank 8 the second time",
    )
    additions: dict[str, Any] | None = Field(
        default=None,
        description="beside the layers (kogata): {cap: 20} bends logits, {scales: true} scales the residual "
        "stream, {values: true} adds tables of values, {ngrams: 8192} adds rows for pairs of tokens",
    )
    embed_width: int | None = Field(
        default=None, ge=8, description="size of the embedding's rows, widened by one matrix (kogata)"
    )

    @model_validator(mode="after")
    def _whole(self) -> ModelShape:
        if (self.layers is None) != (self.width is None):
            raise ValueError("`layers` and `width` go together")
        parts = ("heads", "kv_heads", "ffn_width")
        if self.layers is None and any(getattr(self, name) is not None for name in parts):
            raise ValueError("`heads`, `kv_heads` and `ffn_width` need `layers` and `width`")
        if isinstance(self.ffn, dict) and len(self.ffn) != 1:
            raise ValueError("`ffn` names one part")
        return self
