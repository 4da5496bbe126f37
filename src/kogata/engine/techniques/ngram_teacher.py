"""Lets counts of the text's n-grams teach beside the text at first, and ever less from then on.

A position's target is then no longer the one token that stands there alone, but partly what followed the same
tokens elsewhere: the same gradient on average, with less noise. `share` of the target goes to these followers
at first, each by its interpolated n-gram probability; it falls in a line to nothing at `until`. What the kept
followers leave stays with the token that stands there. The model itself holds no counts, and the loss told is
the plain one.

Pays when: the first steps are most of training, and noise is what keeps their loss up.
Hurts when: it lasts: the counts know nothing of what lies further back than they look.
Cost: counting, about a tenth of a second per million tokens, and about a millisecond a step while it teaches.
Source: soft targets: Hinton et al. 2015 (arXiv 1503.02531); that such models learn n-gram statistics first:
    Nguyen 2024 (arXiv 2407.12034).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    import numpy as np

    from kogata.core.receipt import Machine
    from kogata.engine.followers import Order
    from kogata.engine.sampler import Batch, Sampler
    from kogata.engine.supply import Supply
    from kogata.nn.decoder import Decoder
    from kogata.nn.losses import SoftTargets
    from kogata.nn.spec import ModelSpec

MOST_TOKENS = 12_000_000
"""Tokens counted at most, cut evenly out of a longer text: time and memory grow with them."""
COUNT_SECONDS = 6e-8
"""Of a token and order; 2.6 and 7.8 million tokens, orders 2 to 4, took 1.4e-8 to 6.8e-8 of a Zen 5 core."""
COUNT_BYTES = 48
"""Held of a token while the longest order is counted."""
TEACH = 0.03
"""Of a step, what looking followers up and teaching them takes."""


class Settings(VariantSettings):
    """Settings of `ngram_teacher`."""

    order: int = Field(default=3, ge=2, le=5, description="tokens of the longest n-gram")
    share: float = Field(
        default=0.5, ge=0, le=1, description="of a target that the followers have at first; 0 teaches nothing"
    )
    until: float = Field(
        default=0.25, gt=0, le=1, description="share of training after which they teach no longer"
    )
    top: int = Field(default=16, ge=1, le=256, description="followers kept of each run of tokens")

    def at(self, progress: float) -> float:
        """Gives the followers' share of a target at a moment of training."""
        return self.share * max(0.0, 1 - progress / self.until)


def cost(settings: Settings, spec: ModelSpec) -> float:
    """Forecasts the time of a step over that of one without, the mean over training."""
    return 1 + (TEACH * settings.until if settings.share else 0.0)


def seconds(settings: Settings, tokens: int, machine: Machine) -> float:
    """Forecasts the seconds of counting."""
    counted = min(tokens, MOST_TOKENS) * (settings.order - 1)
    return machine.paced(COUNT_SECONDS * counted) if settings.share else 0.0


def text_bytes(settings: Settings, tokens: int) -> int:
    """Forecasts the bytes that counting holds."""
    return COUNT_BYTES * min(tokens, MOST_TOKENS) if settings.share else 0


def fits(vocab_size: int, order: int) -> bool:
    """Says whether every n-gram has a number of its own in 63 bits."""
    return vocab_size**order < 2**63


def refuses(settings: Settings, spec: ModelSpec) -> tuple[str, str] | None:
    """Gives what was found and expected where n-grams cannot be numbered."""
    if fits(spec.vocab_size, settings.order):
        return None
    most = next(order for order in range(settings.order, 0, -1) if fits(spec.vocab_size, order))
    return f"order {settings.order} with {spec.vocab_size:,} ids", f"an order of at most {most}"


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique."""
    return NgramTeacher(settings, decoder.spec.vocab_size)


class NgramTeacher(Technique):
    """Counts when it is first asked, and forgets the counts once they teach no longer."""

    name = "ngram_teacher"

    def __init__(self, settings: Settings, vocab_size: int) -> None:
        self.settings, self.vocab_size = settings, vocab_size
        self.orders: list[Order] = []
        self.now = 0.0
        """The followers' share of the targets at the step at hand."""
        self._ids: np.ndarray | None = None

    def draw_from(self, sampler: Sampler, supply: Supply) -> Sampler:
        """Keeps the text at hand."""
        self._ids = supply.store.ids
        return sampler

    def before_forward(self, moment: Moment) -> None:
        """Gives the objective a teacher while it is time."""
        from kogata.engine.followers import count

        self.now = self.settings.at(moment.progress)
        if not self.now:
            self.orders = []
            return
        if not self.orders:
            assert self._ids is not None, "the text comes before the first step"
            how = self.settings.order, self.settings.top, MOST_TOKENS
            self.orders = count(self._ids, self.vocab_size, *how)
        moment.objective.teacher = self.teach

    def gradients(self, moment: Moment) -> None:
        """Takes the teacher away: looks at held-out text have none."""
        moment.objective.teacher = None

    def teach(self, batch: Batch) -> SoftTargets:
        """Gives what the targets of a batch are moved to."""
        import torch

        from kogata.engine.followers import follow
        from kogata.nn.losses import SoftTargets

        inputs, device = batch.inputs.cpu().numpy(), batch.inputs.device
        tokens, shares = follow(
            self.orders, inputs, self.vocab_size, self.settings.top, documents=batch.documents
        )
        return SoftTargets(
            tokens=torch.from_numpy(tokens).to(device),
            shares=torch.from_numpy(shares).mul_(self.now).to(device),
        )

    def row(self) -> dict[str, Any]:
        """Gives the followers' share of the step's targets."""
        return {"teacher_share": round(self.now, 4)}
