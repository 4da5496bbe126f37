"""Chooses what a recipe leaves `auto`: shape, context, batch, learning rate, length. Each with its reason.

Imports no torch: plans use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kogata.core.amounts import format_bytes, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.shape import ModelShape
from kogata.engine.costs import head_updates, peak_bytes, step_cost
from kogata.nn.additions import read_additions
from kogata.nn.mixers import read_pattern
from kogata.nn.sharing import Sharing, read_sharing
from kogata.nn.spec import ModelSpec

LADDER = (
    (2, 64), (2, 96), (2, 128), (3, 128), (2, 192), (3, 192), (4, 192), (4, 256), (5, 256), (6, 256),
    (6, 320), (6, 384), (8, 384), (8, 448), (8, 512), (10, 512), (12, 512), (12, 640), (12, 768),
    (16, 768), (24, 1024),
)  # fmt: skip
"""Layers and width, from small to large; widths are multiples of a head."""
HEAD_DIM = 64
TOKENS_PER_WEIGHT = 1.0
"""Tokens a run should see per weight in products (blocks and head). Under a clock on a CPU a smaller model
that sees more is better than the 8 to 20 of large machines suggests, for the start from the corpus's own
statistics has already taught embedding and head."""
SMALL_VOCABULARY = 512
"""Below it the ids are characters: smaller steps and a higher rate were measured best."""
LONG_CONTEXT = 512
"""Tokens of a window from which on training begins with far shorter ones (benchmarks/bench_curriculum.py)."""
HEAD_DOMINATES = 0.5
"""Part of a token's products from which on the head is moved in every fourth step only (found at 0.64)."""
DEFAULT_SECONDS = 600.0
MOST_EPOCHS = 4.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn_width: int
    tied: bool


def shape_of(family: str, layers: int, width: int, tied: bool = False) -> Shape:
    """Completes layers and width: heads of 64 where they fit, a feed-forward of the usual size."""
    head = next(size for size in (HEAD_DIM, 32, 16, 8, 4, 2) if width % size == 0)
    heads = max(1, width // head)
    ffn = 4 * width if family == "arcee" else max(32, round(8 * width / 3 / 32) * 32)
    return Shape(layers=layers, width=width, heads=heads, kv_heads=heads, ffn_width=ffn, tied=tied)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a shape has beside its sizes: mixers, feed-forward parts, what is shared."""

    pattern: tuple[Any, ...] | None = None
    ffn: str | dict[str, Any] | None = None
    sharing: dict[str, int] | None = None
    embed_width: int | None = None
    additions: dict[str, Any] | None = None

    @staticmethod
    def of(asked: ModelShape) -> Extras:
        """Reads them from the settings."""
        return Extras(
            pattern=None if asked.pattern is None else tuple(asked.pattern),
            ffn=asked.ffn,
            sharing=asked.sharing,
            embed_width=asked.embed_width,
            additions=asked.additions,
        )

    def fits(self, layers: int) -> bool:
        """Says whether so many layers can have them."""
        shared = self._shared()
        stored, rest = divmod(layers, shared.times * shared.loops)
        return stored >= max(1, len(self.pattern or ())) and not rest

    def fields(self, layers: int) -> dict[str, Any]:
        """Gives the spec's fields for so many layers; refuses what cannot be."""
        found: dict[str, Any] = {}
        shared = self._shared()
        stored = max(1, layers // (shared.times * shared.loops))
        if self.pattern is not None:
            of = "the model's layers" if stored == layers else "the blocks whose weights are stored"
            names, settings = read_pattern(self.pattern, stored, of)
            order = range(layers) if layers % (shared.times * shared.loops) else shared.order(layers)
            found["mixers"] = tuple(names[block % stored] for block in order)
            found["mixer_settings"] = tuple(settings[block % stored] for block in order)
        if shared != Sharing():
            found["sharing"] = shared.model_dump()
        if isinstance(self.ffn, dict):
            ((found["ffn"], found["ffn_settings"]),) = self.ffn.items()
        elif self.ffn is not None:
            found["ffn"] = self.ffn
        if self.additions is not None:
            found["additions"] = read_additions(self.additions).model_dump(exclude_defaults=True)
        if self.embed_width is not None:
            found["embed_width"] = self.embed_width
        return found

    def _shared(self) -> Sharing:
        return read_sharing(self.sharing)


NONE = Extras()


def spec_of(family: str, shape: Shape, vocab_size: int, context: int, extras: Extras = NONE) -> ModelSpec:
    """Makes the spec of a shape; its context is what the model is meant for."""
    return ModelSpec.of_family(
        family,
        vocab_size=vocab_size,
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        ffn_width=shape.ffn_width,
        tied=shape.tied,
        context=context,
        **extras.fields(shape.layers),
    )


def weights_in_products(spec: ModelSpec) -> int:
    """Counts the weights that a token is multiplied with: blocks and head."""
    return spec.matrix_parameters() + spec.head_flops() // 2


def by_time(
    family: str,
    vocab_size: int,
    tied: bool,
    context: int,
    batch: int,
    seconds: float,
    machine: Machine,
    extras: Extras = NONE,
    tables_every: Callable[[ModelSpec], int] = lambda spec: 1,
    precision: str = "fp32",
) -> tuple[Shape, float]:
    """Chooses the largest shape that sees enough tokens in the time; gives it and the tokens.

    What a resting head saves goes into steps, not into a larger shape: so it was found.
    """
    best: tuple[Shape, float] | None = None
    sizes: dict[str, Any] = {"batch": batch, "context": context, "muon": False, "precision": precision}
    for layers, width in _ladder(extras):
        shape = shape_of(family, layers, width, tied)
        spec = spec_of(family, shape, vocab_size, context, extras)
        tokens = seconds / step_cost(spec, machine, **sizes).seconds * batch
        if best is None or tokens >= TOKENS_PER_WEIGHT * weights_in_products(spec):
            updates = head_updates(tables_every(spec), None)
            best = shape, seconds / step_cost(spec, machine, **sizes, updates=updates).seconds * batch
        else:
            break
    assert best is not None
    return best


def _ladder(extras: Extras) -> list[tuple[int, int]]:
    """Lists the shapes whose layers the pattern fits; where none does, the smallest one tells why."""
    return [(layers, width) for layers, width in LADDER if extras.fits(layers)] or [LADDER[0]]


def by_tokens(
    family: str, vocab_size: int, tied: bool, context: int, tokens: float, extras: Extras = NONE
) -> Shape:
    """Chooses the largest shape that so many tokens can teach."""
    ladder = _ladder(extras)
    best = shape_of(family, *ladder[0], tied)
    for layers, width in ladder:
        shape = shape_of(family, layers, width, tied)
        spec = spec_of(family, shape, vocab_size, context, extras)
        if tokens < TOKENS_PER_WEIGHT * weights_in_products(spec):
            break
        best = shape
    return best


def by_parameters(
    family: str, vocab_size: int, tied: bool, context: int, wanted: float, extras: Extras = NONE
) -> Shape:
    """Chooses the shape whose count of weights is nearest to the wanted one."""
    widths = range(32, 2049, 32)
    found: list[tuple[float, Shape]] = []
    for width in widths:
        # Depth grows with width as on the ladder: about one layer per 64 of width.
        for layers in {max(1, round(width / 64)), max(2, round(width / 80)), max(2, round(width / 56))}:
            if not extras.fits(layers):
                continue
            shape = shape_of(family, layers, width, tied)
            count = spec_of(family, shape, vocab_size, context, extras).parameters()
            odd = 0.0 if width % HEAD_DIM == 0 else 0.03  # heads of 64 make faster products
            found.append((abs(count / wanted - 1) + odd, shape))
    if not found:
        return shape_of(family, *LADDER[0], tied)
    return min(found, key=lambda pair: pair[0])[1]


def context_for(tokens: int, documents: int, vocab_size: int) -> tuple[int, str]:
    """Chooses the window: 256 tokens, less where documents or the whole text are shorter."""
    mean = tokens / max(1, documents)
    if tokens < 4 * 257:
        context = max(8, 1 << max(3, (tokens // 8).bit_length() - 1))
        return context, f"only {tokens:,} training tokens"
    if mean < 48:
        return 64, f"documents have {mean:.0f} tokens on average"
    return 256, "256 tokens: what bits per byte are measured at, and cheap attention"


def curriculum_for(context: int, sampling: Any = None) -> str:
    """Chooses what windows come first: at 512 tokens doubling lengths beat half ones, five seeds of five.

    Args:
        context: tokens of the longest window.
        sampling: the way of sampling, which may need a curriculum of its own.
    """
    usual = "length_warmup" if context >= LONG_CONTEXT else "half_length"
    return getattr(sampling, "CURRICULUM", usual)


def batch_for(vocab_size: int, context: int, seconds: float | None, tokens: float) -> tuple[int, str]:
    """Chooses the tokens of a step: small, so that a short run takes many steps."""
    batch = 512 if vocab_size < SMALL_VOCABULARY else 1024
    if (seconds or 0.0) > 1800 or (seconds is None and tokens > 2e7):
        batch *= 4 if (seconds or 0.0) > 10_000 or (seconds is None and tokens > 2e8) else 2
    while batch > context and tokens / batch < 32:
        batch //= 2
    batch = max(context, batch // context * context)
    return batch, f"{batch:,} tokens a step: small steps learn most per token, and still fill two cores"


def length_for(
    spec: ModelSpec,
    batch: int,
    context: int,
    train_tokens: int,
    machine: Machine,
    tables_every: int = 1,
    precision: str = "fp32",
) -> tuple[int, str]:
    """Chooses the steps of a run that has neither a length nor a time budget."""
    updates = head_updates(tables_every, None)
    sizes: dict[str, Any] = {"batch": batch, "context": context, "muon": False, "precision": precision}
    pace = step_cost(spec, machine, **sizes, updates=updates).seconds
    fits = DEFAULT_SECONDS / pace
    whole = MOST_EPOCHS * train_tokens / batch
    if fits <= whole:
        reason = f"no length and no time budget given: about {format_seconds(DEFAULT_SECONDS)} of steps here"
    else:
        reason = f"no length and no time budget given: {MOST_EPOCHS:.0f} epochs, more teach little"
    return max(10, int(min(fits, whole))), reason


def optimizer_for() -> tuple[str, str]:
    """Chooses what trains the matrices."""
    return "adamw", "in small steps it beat Muon, which costs a quarter of such a step (LOG.md)"


def lr_for(optimizer: str, batch: int, vocab_size: int, continued: bool) -> tuple[float, str]:
    """Chooses the peak learning rate of the blocks' matrices; it grows with the root of the batch."""
    small = vocab_size < SMALL_VOCABULARY
    base = 0.014 if optimizer != "adamw" else 0.006 if small else 0.002
    lr = base * (batch / 1024) ** 0.5 * (0.25 if continued else 1.0)
    reason = f"measured best at 1,024 tokens a step ({base:g}), times √(batch / 1,024)"
    if small and optimizer == "adamw":
        reason = f"measured best for a vocabulary of characters ({base:g} at 1,024), times √(batch / 1,024)"
    return round(lr, 6), reason + (", a quarter to go on with a trained model" if continued else "")


def tables_every_for(spec: ModelSpec, asked: int | str, corpus_start: bool) -> tuple[int, str]:
    """Chooses the steps from one update of the head to the next; gives no reason for what was asked.

    Raises:
        RecipeError: a tied table is to rest.
    """
    if asked != "auto" and spec.tied and int(asked) > 1:
        raise RecipeError(
            "a tied table cannot rest",
            where="train.pretrain.tables_every",
            found=f"{asked} with a table that is head and embedding",
            expected="1: the embedding is moved in every step",
            remedy="leave it out, or set `tied: false`",
        )
    share = spec.head_flops() / spec.product_flops()
    if asked != "auto":
        return int(asked), ""
    if spec.tied:
        return 1, "a tied table is the embedding too, which every step moves"
    if not corpus_start:
        return 1, "a head that does not start from the corpus's statistics has most to learn"
    if share < HEAD_DOMINATES:
        return 1, f"the head is {share:.0%} of a token's products: there is little to save"
    return 4, f"the head starts well taught and is {share:.0%} of a token's products"


def refuse_other_shape(asked: ModelShape, given: ModelSpec) -> None:
    """Refuses settings of a shape that a model to train on does not have.

    Raises:
        RecipeError: naming them.
    """
    names = ("layers", "width", "heads", "kv_heads", "ffn_width", "tied", "embed_width")
    found = [name for name in names if getattr(asked, name) not in (None, getattr(given, name))]
    if asked.family not in (ModelShape.model_fields["family"].default, given.family):
        found.append("family")
    if asked.parameters not in ("auto", given.parameters()):
        found.append("parameters")
    if asked.sharing is not None and read_sharing(asked.sharing) != given.shared():
        found.append("sharing")
    if asked.additions is not None and read_additions(asked.additions) != given.added():
        found.append("additions")
    if asked.ffn is not None and given.ffn not in ([asked.ffn] if isinstance(asked.ffn, str) else asked.ffn):
        found.append("ffn")
    if asked.pattern is not None:
        stored = given.stored_layers()
        if read_pattern(asked.pattern, len(stored))[0] != tuple(map(given.mixer, stored)):
            found.append("pattern")
    if found:
        raise RecipeError(
            "a given model keeps its shape",
            where=f"train.pretrain.model.{found[0]}",
            found=f"{', '.join(found)} beside a model to train on",
            expected="no `model` settings, or those that model has",
            remedy="leave `model` out; or begin from scratch, without the slot `model`",
        )


def what_fits(
    spec: ModelSpec, extras: Extras | None, context: int, memory: int, *, muon: bool, processes: int
) -> str:
    """Names what would train in so many bytes: a shorter context; without a given model, a smaller shape."""

    def fits(one: ModelSpec, tokens: int) -> bool:
        return peak_bytes(one, micro=tokens, muon=muon, processes=processes) <= memory

    found, shorter = [], context // 2
    while shorter >= 64 and not fits(spec, shorter):
        shorter //= 2
    if shorter >= 64:
        found.append(f"a context of {shorter:,}")
    for layers, width in reversed([] if extras is None else _ladder(extras)):
        if layers * width >= spec.layers * spec.width:
            continue
        shape = shape_of(spec.family, layers, width, spec.tied)
        smaller = spec_of(spec.family, shape, spec.vocab_size, context, extras or NONE)
        if fits(smaller, context):
            found.append(f"{layers} layers of width {width}")
            break
    return f"what would fit: {' or '.join(found)}" if found else "nothing of this kind would fit"


def pattern_reason(spec: ModelSpec, context: int) -> str:
    """Says what a pattern saves against full attention in every layer."""
    full = replace(spec, mixers=None, mixer_settings=None)
    held, whole = spec.cache_bytes(context), full.cache_bytes(context)
    flops = spec.flops_per_token(context) / full.flops_per_token(context)
    return (
        f"after {context:,} tokens a cache of {format_bytes(held)}, {held / whole:.0%} of full attention's; "
        f"{flops:.0%} of its FLOPs"
    )
