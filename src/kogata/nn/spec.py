"""ModelSpec: the shape of a decoder and the arithmetic on it. Imports no torch, so plans can count."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kogata.core.errors import RecipeError

FAMILIES = ("llama", "qwen2", "qwen3", "smollm3", "arcee")
ROPE_SCALINGS = ("linear", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """States everything that decides the graph of a decoder; two equal specs compute the same function.

    Attributes:
        family: the graph's name in transformers and llama.cpp, one of FAMILIES.
        vocab_size: rows of the embedding.
        layers: blocks.
        width: size of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; divides `heads`.
        head_dim: size of one head; even.
        ffn_width: inner size of the feed-forward part.
        ffn: file in `nn/ffn` that computes it.
        qk_norm: RMSNorm on each query and key head.
        qkv_bias: bias on query, key and value.
        tied: output rows are the embedding's rows.
        rope_theta: base of the rotary frequencies.
        rope_layers: per layer, whether positions are rotated in; None means every layer.
        rope_scaling: None, or transformers' `rope_parameters` without the base (`rope_type`, `factor`, ...).
        norm_eps: added under the root of each RMSNorm.
        context: longest sequence the model is meant for, in tokens.
        mixers: per layer, file in `nn/attention`; None means `full` everywhere.
    """

    family: str
    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    ffn: Literal["swiglu", "relu2"] = "swiglu"
    qk_norm: bool = False
    qkv_bias: bool = False
    tied: bool = True
    rope_theta: float = 10000.0
    rope_layers: tuple[bool, ...] | None = None
    rope_scaling: dict[str, Any] | None = None
    norm_eps: float = 1e-6
    context: int = 256
    mixers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "layers",
            "width",
            "heads",
            "kv_heads",
            "head_dim",
            "ffn_width",
            "context",
        ):
            if getattr(self, name) < 1:
                raise _unfit(name, str(getattr(self, name)), "a whole number of at least 1")
        if self.family not in FAMILIES:
            raise _unfit("family", self.family, " | ".join(FAMILIES))
        if self.heads % self.kv_heads:
            raise _unfit("kv_heads", str(self.kv_heads), f"a divisor of the {self.heads} heads")
        if self.head_dim % 2:
            raise _unfit("head_dim", str(self.head_dim), "an even number (rotary positions turn pairs)")
        if self.family != "qwen3" and self.width % self.heads:
            raise _unfit("heads", str(self.heads), f"a divisor of the width {self.width} ({self.family})")
        if self.family in ("qwen2", "smollm3") and self.width != self.heads * self.head_dim:
            raise _unfit(
                "head_dim", str(self.head_dim), f"width / heads = {self.width / self.heads:g} ({self.family})"
            )
        for name in ("rope_layers", "mixers"):
            value = getattr(self, name)
            if value is not None and len(value) != self.layers:
                raise _unfit(name, f"{len(value)} entries", f"one for each of the {self.layers} layers")
        graph = {
            "ffn": "relu2" if self.family == "arcee" else "swiglu",
            "qk_norm": self.family == "qwen3",
            "qkv_bias": self.family == "qwen2",
        }
        for name, value in graph.items():
            if getattr(self, name) != value:
                raise _unfit(
                    name, str(getattr(self, name)), f"{value} (the family {self.family} has no other)"
                )
        if self.family != "smollm3" and self.rope_layers is not None and not all(self.rope_layers):
            raise _unfit("rope_layers", "layers without positions", "the family smollm3 for them")
        if self.rope_scaling is not None and self.rope_scaling.get("rope_type") not in ROPE_SCALINGS:
            found = str(self.rope_scaling.get("rope_type"))
            raise _unfit("rope_scaling.rope_type", found, " | ".join(ROPE_SCALINGS))

    @staticmethod
    def of_family(family: str, **sizes: Any) -> ModelSpec:
        """Fills in what the family fixes (`ffn`, `qk_norm`, `qkv_bias`, head size) around the given sizes."""
        if "heads" in sizes:
            sizes.setdefault("kv_heads", sizes["heads"])
            sizes.setdefault("head_dim", sizes["width"] // sizes["heads"])
        return ModelSpec(
            family=family,
            ffn="relu2" if family == "arcee" else "swiglu",
            qk_norm=family == "qwen3",
            qkv_bias=family == "qwen2",
            **sizes,
        )

    def has_rope(self, layer: int) -> bool:
        """Says whether this layer sees positions."""
        return self.rope_layers is None or self.rope_layers[layer]

    def mixer(self, layer: int) -> str:
        """Names the file in `nn/attention` that mixes this layer's tokens."""
        return "full" if self.mixers is None else self.mixers[layer]

    @property
    def q_width(self) -> int:
        """Size of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Size of all key heads together (and of all value heads)."""
        return self.kv_heads * self.head_dim

    def matrix_parameters(self) -> int:
        """Counts the weights in the blocks' matrices: what Muon trains; embedding and head are not in it."""
        attention = self.width * (self.q_width + 2 * self.kv_width) + self.q_width * self.width
        ffn = (3 if self.ffn == "swiglu" else 2) * self.width * self.ffn_width
        return self.layers * (attention + ffn)

    def embedding_parameters(self) -> int:
        """Counts embedding and head, a tied head once."""
        return self.vocab_size * self.width * (1 if self.tied else 2)

    def parameters(self) -> int:
        """Counts every weight, tied ones once."""
        vectors = 2 * self.width
        vectors += 2 * self.head_dim if self.qk_norm else 0
        vectors += self.q_width + 2 * self.kv_width if self.qkv_bias else 0
        return self.matrix_parameters() + self.embedding_parameters() + self.layers * vectors + self.width

    def forward_flops_per_token(self, context: int) -> int:
        """Counts the multiplications and additions of one token's forward pass, head included.

        Attention is counted causally: a token sees half the context on average.
        """
        products = 2 * (self.matrix_parameters() + self.vocab_size * self.width)
        attention = self.layers * 2 * self.q_width * context
        return products + attention

    def flops_per_token(self, context: int) -> int:
        """Counts one token's training: forward and backward are three forwards."""
        return 3 * self.forward_flops_per_token(context)

    def cache_bytes(self, tokens: int) -> int:
        """Counts the bytes that keys and values of so many tokens take in float32."""
        return self.layers * 2 * self.kv_width * tokens * 4

    def to_dict(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ModelSpec:
        """Builds the spec from `to_dict`; an unknown field is refused."""
        known = {field.name for field in fields(ModelSpec)}
        for name in values:
            if name not in known:
                raise _unfit(name, "an unknown field", ", ".join(sorted(known)))
        lists = ("rope_layers", "mixers")
        plain: dict[str, Any] = {
            key: tuple(value) if key in lists and value is not None else value
            for key, value in values.items()
        }
        return ModelSpec(**plain)


def _unfit(field: str, found: str, expected: str) -> RecipeError:
    return RecipeError(
        "the model's shape does not fit", where=f"model.{field}", found=found, expected=expected
    )
