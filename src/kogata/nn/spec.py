"""ModelSpec: the shape of a decoder and the arithmetic on it. Imports no torch, so plans can count."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from kogata.core.errors import RecipeError
from kogata.nn import families, mixers
from kogata.nn.additions import Additions, read_additions
from kogata.nn.families import FAMILY
from kogata.nn.ffns import ffn_linears, ffn_matrices, ffn_settings
from kogata.nn.sharing import Sharing, read_sharing

FAMILIES = ("llama", "qwen2", "qwen3", "smollm3", "arcee")
"""Families of full attention alone, which GGUF files are read of."""
HYBRIDS = ("gemma3", "lfm2", "qwen3_5")
"""Families with other mixers beside it."""
ROPE_SCALINGS = ("linear", "llama3", "yarn")
_LATER = (
    "mixer_settings",
    "ffn_settings",
    "local_rope_theta",
    "rotary_dim",
    "embed_width",
    "sharing",
    "additions",
)
"""Fields that `to_dict` leaves out where they say nothing."""
_LISTS = ("rope_layers", "mixers", "mixer_settings")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """States everything that decides the graph of a decoder; two equal specs compute the same function.

    Attributes:
        family: the graph's name in transformers and llama.cpp, a key of `families.FAMILY`.
        vocab_size: rows of the embedding.
        layers: blocks a token passes.
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
        mixers: per layer, the mixer's name (see `nn/mixers.py`); None means `full` everywhere.
        mixer_settings: per layer, its settings; None means the usual ones everywhere.
        ffn_settings: settings of the feed-forward part, where it has any.
        local_rope_theta: base of the rotary frequencies in windows; None: `rope_theta`.
        rotary_dim: how much of a head turns, from its start; None: all of it.
        embed_width: rows of the embedding have this size and are widened by one matrix; None: `width`.
        sharing: which layers have their weights in common; see `nn/sharing.py`.
        additions: what stands beside the layers; see `nn/additions.py`.
    """

    family: str
    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    ffn: str = "swiglu"
    qk_norm: bool = False
    qkv_bias: bool = False
    tied: bool = True
    rope_theta: float = 10000.0
    rope_layers: tuple[bool, ...] | None = None
    rope_scaling: dict[str, Any] | None = None
    norm_eps: float = 1e-6
    context: int = 256
    mixers: tuple[str, ...] | None = None
    mixer_settings: tuple[dict[str, Any], ...] | None = None
    ffn_settings: dict[str, Any] | None = None
    local_rope_theta: float | None = None
    rotary_dim: int | None = None
    embed_width: int | None = None
    sharing: dict[str, int] | None = None
    additions: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "layers", "width", "heads", "kv_heads", "head_dim", "ffn_width", "context")
        for name in sizes:
            if getattr(self, name) < 1:
                raise _unfit(name, str(getattr(self, name)), "a whole number of at least 1")
        if self.family not in FAMILY:
            raise _unfit("family", self.family, " | ".join(FAMILY))
        family = FAMILY[self.family]
        if self.heads % self.kv_heads:
            raise _unfit("kv_heads", str(self.kv_heads), f"a divisor of the {self.heads} heads")
        if self.head_dim % 2:
            raise _unfit("head_dim", str(self.head_dim), "an even number (rotary positions turn pairs)")
        if family.divides and self.width % self.heads:
            raise _unfit("heads", str(self.heads), f"a divisor of the width {self.width} ({self.family})")
        if family.head_is_share and self.width != self.heads * self.head_dim:
            raise _unfit(
                "head_dim", str(self.head_dim), f"width / heads = {self.width / self.heads:g} ({self.family})"
            )
        for name in _LISTS:
            value = getattr(self, name)
            if value is not None and len(value) != self.layers:
                raise _unfit(name, f"{len(value)} entries", f"one for each of the {self.layers} layers")
        for name in ("qk_norm", "qkv_bias"):
            value = getattr(family, name)
            if getattr(self, name) != value:
                raise _unfit(
                    name, str(getattr(self, name)), f"{value} (the family {self.family} has no other)"
                )
        if not family.skips_positions and self.rope_layers is not None and not all(self.rope_layers):
            raise _unfit("rope_layers", "layers without positions", "the family smollm3 for them")
        if self.rope_scaling is not None and self.rope_scaling.get("rope_type") not in ROPE_SCALINGS:
            found = str(self.rope_scaling.get("rope_type"))
            raise _unfit("rope_scaling.rope_type", found, " | ".join(ROPE_SCALINGS))
        self._check_parts(family)

    def _check_parts(self, family: families.Family) -> None:
        """Refuses mixers, feed-forward parts and sharing that the family cannot express."""
        if family.ffns is not None and self.ffn not in family.ffns:
            known = families.having("ffns", self.ffn)
            raise _unfit("ffn", self.ffn, f"{' | '.join(family.ffns)} ({self.family}); {self.ffn}: {known}")
        ffn_settings(self)
        if not family.own:
            for name in ("embed_width", "sharing", "additions"):
                if getattr(self, name) is not None:
                    raise _unfit(name, f"{getattr(self, name)} in the family {self.family}", "family: kogata")
        elif self.embed_width is not None and not 0 < self.embed_width < self.width:
            raise _unfit("embed_width", str(self.embed_width), f"less than the width {self.width}")
        for layer, name in enumerate(self.mixers or ()):
            if family.mixers is not None and name not in family.mixers:
                raise RecipeError(
                    "the family cannot express this mixer",
                    where="model.pattern",
                    found=f"{name} in the family {self.family}, which has {' and '.join(family.mixers)}",
                    expected=f"a family with {name}: {families.having('mixers', name)}",
                )
            check = getattr(mixers.find(name), "check", None) if name != "full" else None
            reason = check(self, self.settings(layer), layer) if check else None
            if reason:
                raise _unfit(f"pattern.{name}", *reason)
        turned = self.head_dim if self.rotary_dim is None else self.rotary_dim
        if turned % 2 or not 0 < turned <= self.head_dim:
            raise _unfit("rotary_dim", str(turned), f"an even number up to the head's {self.head_dim}")
        self.shared().check(self)
        self.added().check(self)

    @staticmethod
    def of_family(family: str, **sizes: Any) -> ModelSpec:
        """Fills in what the family fixes (`ffn`, `qk_norm`, `qkv_bias`, head size) around the given sizes."""
        if "heads" in sizes:
            if "head_dim" not in sizes and sizes["width"] % sizes["heads"]:
                raise _unfit("heads", str(sizes["heads"]), f"a divisor of the width {sizes['width']}")
            sizes.setdefault("kv_heads", sizes["heads"])
            sizes.setdefault("head_dim", sizes["width"] // sizes["heads"])
        facts = FAMILY.get(family)
        if facts is None:
            raise _unfit("family", family, " | ".join(FAMILY))
        if facts.local_theta is not None:
            sizes.setdefault("local_rope_theta", facts.local_theta)
        if facts.rotary_share is not None:
            sizes.setdefault("rotary_dim", max(2, int(sizes["head_dim"] * facts.rotary_share) // 2 * 2))
        if facts.pattern != ("full",) and "mixers" not in sizes:
            layers = sizes["layers"]
            sizes["mixers"], sizes["mixer_settings"] = mixers.read_pattern(facts.pattern[-layers:], layers)
        sizes.setdefault("ffn", (facts.ffns or ("swiglu",))[0])
        return ModelSpec(family=family, qk_norm=facts.qk_norm, qkv_bias=facts.qkv_bias, **sizes)

    @property
    def centred_norms(self) -> bool:
        """Whether norms multiply by 1 + weight."""
        return FAMILY[self.family].centred_norms

    @property
    def sandwich_norms(self) -> bool:
        """Whether mixers and feed-forward parts are normalised after, too."""
        return FAMILY[self.family].sandwich_norms

    @property
    def embed_scale(self) -> float:
        """What embeddings are multiplied by."""
        return self.width**0.5 if FAMILY[self.family].scaled_embedding else 1.0

    def has_rope(self, layer: int) -> bool:
        """Says whether this layer sees positions."""
        return self.rope_layers is None or self.rope_layers[layer]

    def mixer(self, layer: int) -> str:
        """Names the mixer of this layer's tokens."""
        return "full" if self.mixers is None else self.mixers[layer]

    def settings(self, layer: int) -> Any:
        """Gives the settings of this layer's mixer, an instance of its `Settings`."""
        given = {} if self.mixer_settings is None else self.mixer_settings[layer]
        return mixers.settings_of(self.mixer(layer), given)

    def only_full(self) -> bool:
        """Says whether every layer is full attention with weights of its own."""
        return self.sharing is None and (self.mixers is None or all(name == "full" for name in self.mixers))

    def shared(self) -> Sharing:
        """Says which layers have their weights in common."""
        return read_sharing(self.sharing)

    def added(self) -> Additions:
        """Says what stands beside the layers."""
        return read_additions(self.additions)

    def stored_layers(self) -> list[int]:
        """Lists the first layer of each stored block."""
        return list(range(self.layers)) if self.sharing is None else self.shared().first_layers(self.layers)

    @property
    def q_width(self) -> int:
        """Size of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Size of all key heads together (and of all value heads)."""
        return self.kv_heads * self.head_dim

    def layer_sizes(self, tokens: int = 1) -> list[mixers.Sizes]:
        """Counts each layer's mixer in a sequence of so many tokens."""
        if self.only_full():
            return [mixers.full_sizes(self, tokens)] * self.layers
        return [mixers.sizes_of(self, layer, tokens) for layer in range(self.layers)]

    def linear_shapes(self, sizes: mixers.Sizes) -> list[tuple[int, int]]:
        """Lists rows and columns of one block's linear layers, fused matrices as one."""
        return [*(sizes.matrices if sizes.linears is None else sizes.linears), *ffn_linears(self)]

    def matrix_parameters(self) -> int:
        """Counts the weights in the blocks' matrices: what Muon trains; embedding and head are not in it."""
        sizes, ffn = self.layer_sizes(), sum(rows * columns for rows, columns in ffn_matrices(self))
        own = sum(sizes[layer].matrix_parameters + ffn for layer in self.stored_layers())
        return own + self.shared().change_parameters(self, sizes)

    def embedding_parameters(self) -> int:
        """Counts embedding and head, a tied head once."""
        if self.embed_width is not None:
            return (self.vocab_size + self.width) * self.embed_width * (1 if self.tied else 2)
        return self.vocab_size * self.width * (1 if self.tied else 2)

    def parameters(self) -> int:
        """Counts every weight, tied ones once."""
        norms = (4 if self.sandwich_norms else 2) * self.width
        sizes = self.layer_sizes()
        vectors = sum(sizes[layer].vectors + norms for layer in self.stored_layers())
        beside = vectors + self.width + self.added().parameters(self)
        return self.matrix_parameters() + self.embedding_parameters() + beside

    def product_flops(self) -> int:
        """Counts one token's forward products with weights, head included; shared blocks each time."""
        sizes, active = self.layer_sizes(), sum(r * c for r, c in ffn_matrices(self, active=True))
        blocks = sum(one.matrix_parameters + active for one in sizes)
        shared = self.shared()
        blocks += shared.times * shared.change_parameters(self, sizes)
        return 2 * blocks + self.head_flops()

    def head_flops(self) -> int:
        """Counts one token's forward products with embedding and head, which both may be factorised."""
        if self.embed_width is None:
            return 2 * self.vocab_size * self.width
        return 2 * self.embed_width * (self.vocab_size + 2 * self.width)

    def forward_flops_per_token(self, context: int) -> int:
        """Counts the multiplications and additions of one token's forward pass, head included.

        Attention is counted causally: a token sees half the context on average.
        """
        return self.product_flops() + round(sum(one.flops for one in self.layer_sizes(context)))

    def flops_per_token(self, context: int) -> int:
        """Counts one token's training: forward and backward are three forwards."""
        return 3 * self.forward_flops_per_token(context)

    def cache_bytes(self, tokens: int) -> int:
        """Counts the bytes that a cache takes in float32 once it has seen so many tokens."""
        return 4 * sum(one.cache_floats for one in self.layer_sizes(tokens))

    def to_dict(self) -> dict[str, Any]:
        """Gives plain JSON values; what came later is left out where it says nothing."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None or key not in _LATER
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ModelSpec:
        """Builds the spec from `to_dict`; an unknown field is refused."""
        known = {field.name for field in fields(ModelSpec)}
        for name in values:
            if name not in known:
                raise _unfit(name, "an unknown field", ", ".join(sorted(known)))
        plain: dict[str, Any] = {
            key: tuple(value) if key in _LISTS and value is not None else value
            for key, value in values.items()
        }
        return ModelSpec(**plain)


def _unfit(field: str, found: str, expected: str) -> RecipeError:
    return RecipeError(
        "the model's shape does not fit", where=f"model.{field}", found=found, expected=expected
    )
