"""Reads a share of the rows both ways, some of their tokens hidden: these are predicted, and nothing else.

The other rows are predicted token by token as ever, by the same decoder and the same head: a hidden token is
predicted one place before it, where the next token always is. A vector that is learned beside the model
stands for what is hidden. It is thrown away at the end: what is kept is the causal model, as ever. The loss
told is of both kinds of rows.

Pays when: few words are read many times, or what the model is for needs both sides of a word.
Hurts when: training is short: a row with hidden tokens teaches a seventh of its targets.
Cost: attention over the whole row in place of what lies before, and two passes a step; the head works on the
    hidden tokens alone.
Source: GPT-BERT: Charpentier and Samuel 2024 (arXiv 2410.24159).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.errors import RecipeError
from kogata.core.variants import VariantSettings
from kogata.engine.samplers import chooses_windows
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    from kogata.engine.masked_rows import MaskedRows
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply
    from kogata.engine.techniques import Course
    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec

READS_BOTH_WAYS = ("full", "reuse")
"""Mixers that can; reusing layers as those whose keys they use."""
SAMPLINGS = ("proportional", "weighted")
"""Those whose targets count once each."""
SPLIT = 1.04
"""Of a step, for its rows being computed in two passes."""


class Settings(VariantSettings):
    """Settings of `masked_rows`."""

    share: float = Field(
        default=0.25, ge=0, lt=1, description="of the rows, that are read both ways; 0 leaves all as they are"
    )
    rate: float = Field(default=0.15, gt=0, lt=1, description="of such a row's tokens, that are hidden")
    until: float = Field(
        default=1.0, gt=0, le=1, description="share of training after which all rows are read forwards"
    )


def cost(settings: Settings, spec: ModelSpec) -> float:
    """Forecasts the time of a step over that of one without, the mean over training."""
    from kogata.engine import costs

    if not settings.share:
        return 1.0
    narrow, sizes = 64 / spec.width, spec.layer_sizes(spec.context)
    head = spec.head_flops() * (costs.HEAD + costs.HEAD_NARROW * narrow)
    blocks = (spec.product_flops() - spec.head_flops()) * (costs.BLOCK + costs.BLOCK_NARROW * narrow)
    attention = sum(one.flops * one.slowness for one in sizes)
    ratio = (blocks + 2 * attention + settings.rate * head) / (blocks + attention + head)
    return 1 + settings.until * (settings.share * (ratio - 1) + SPLIT - 1)


def work(settings: Settings, spec: ModelSpec, context: int) -> float:
    """Forecasts a token's products over those of rows read forwards, the mean over training."""
    return 1 + settings.until * settings.share * (_work(settings, spec, context) - 1)


def _work(settings: Settings, spec: ModelSpec, context: int) -> float:
    """Gives the products of a token of a row read both ways over those of one read forwards."""
    whole = spec.forward_flops_per_token(context)
    attention = sum(one.flops for one in spec.layer_sizes(context))
    return (whole + attention - (1 - settings.rate) * spec.head_flops()) / whole


def refuses(settings: Settings, spec: ModelSpec) -> tuple[str, str] | None:
    """Gives what was found and expected where a layer cannot read both ways."""
    others = sorted({spec.mixer(layer) for layer in range(spec.layers)} - set(READS_BOTH_WAYS))
    if others and settings.share:
        return (
            f"layers of {' and '.join(others)}, which see what lies before",
            "full attention in every layer",
        )
    return None


def refuses_course(settings: Settings, course: Course) -> tuple[str, str] | None:
    """Gives what was found and expected where rows are no whole windows."""
    if not settings.share:
        return None
    if course.apart:
        return "documents: apart", "documents: joined"
    if chooses_windows(course.curriculum):
        return f"curriculum {course.curriculum.name}", "a curriculum of whole windows in a shuffled order"
    if course.sampling.name not in SAMPLINGS:
        return f"sampling {course.sampling.name}", f"sampling {' or '.join(SAMPLINGS)}"
    return None


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique; the decoder has a mask from then on until training ends."""
    return Masking(settings, decoder)


class Masking(Technique):
    """Hides tokens, and trains the vector that stands for them."""

    name = "masked_rows"

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        self.settings, self.decoder = settings, decoder
        self.rows: MaskedRows | None = None
        self.ratio = 1.0
        if not settings.share:
            return
        import torch
        from torch import nn

        with torch.no_grad():
            ids = torch.arange(decoder.spec.vocab_size, device=decoder.embed.weight.device)
            decoder.mask = nn.Parameter(decoder.embed(ids).mean(0))

    def draw_from(self, sampler: Sampler, supply: Supply) -> Sampler:
        """Hides tokens of some rows."""
        from kogata.engine.masked_rows import MaskedRows, has_rows

        if not self.settings.share:
            return sampler
        if not has_rows(sampler):
            raise RecipeError(
                "rows of this sampling cannot be masked",
                where=f"{supply.label}.techniques.{self.name}",
                found=type(sampler).__name__,
                expected="a sampler that tells its rows' `context`",
            )
        self.ratio = _work(self.settings, self.decoder.spec, supply.context)
        drawn = self.settings.model_dump()
        stand_in = int(supply.facts["end_id"])
        self.rows = MaskedRows(sampler, **drawn, seed=supply.seed, stand_in=stand_in)
        return self.rows

    def gradients(self, moment: Moment) -> None:
        """Gives the mask a gradient of zero where no row had need of it."""
        mask = self.decoder.mask
        if mask is not None and mask.grad is None:
            mask.grad = mask.new_zeros(mask.shape)

    def work(self) -> float:
        """Gives the products of the step just taken."""
        return 1.0 if self.rows is None else 1 + self.rows.part * (self.ratio - 1)

    def end(self, moment: Moment) -> None:
        """Throws the mask away."""
        self.decoder.mask = None
