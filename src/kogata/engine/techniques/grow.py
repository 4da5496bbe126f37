"""Trains the first layers alone at first, and the whole model from then on.

The layers added are copies of those below, but for what they write: that starts at zero, so that the model
computes what it did. Early steps are cheaper, and take up the same share of the schedule.

Pays when: layers are many, and their products more than the head's.
Hurts when: there are two or three layers, or the head is most of a step: little is saved then.
Cost: less than nothing in time; the layers added have fewer steps.
Source: stacking: Gong et al. 2019, Du et al. 2024 (arXiv 2405.15319); that such gains may vanish beside a
    decayed baseline: Kaddour et al. 2023 (arXiv 2307.06440).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec


class Settings(VariantSettings):
    """Settings of `grow`."""

    share: float = Field(default=0.3, gt=0, lt=1, description="share of training before the model is whole")
    layers: int | None = Field(default=None, ge=1, description="trained at first; by default half of them")


def first_layers(settings: Settings, layers: int) -> int:
    """Says how many layers are trained at first."""
    return settings.layers or max(1, layers // 2)


def cost(settings: Settings, spec: ModelSpec) -> float:
    """Forecasts the mean time of a step over that of the whole model's."""
    return 1 - settings.share * (1 - _work(first_layers(settings, spec.layers), spec))


def work(settings: Settings, spec: ModelSpec, context: int) -> float:
    """Forecasts a token's products over those of the whole model's, the mean over training."""
    return cost(settings, spec)


def refuses(settings: Settings, spec: ModelSpec) -> tuple[str, str] | None:
    """Gives what was found and expected where a model cannot grow so."""
    if spec.sharing is not None:
        return "layers with weights in common", "a model without `sharing`"
    if spec.sandwich_norms:
        return f"the family {spec.family}, which normalises what layers add", "another family"
    if spec.ffn == "experts":
        return "feed-forward parts of experts", "another feed-forward part"
    first = first_layers(settings, spec.layers)
    if first >= spec.layers:
        return f"{first} layers at first, {spec.layers} at last", "fewer layers at first"
    kinds = [spec.mixer(layer) for layer in range(spec.layers)]
    if any(kinds[layer] != kinds[layer % first] for layer in range(first, spec.layers)):
        return "layers that mix otherwise than those they are copied from", "a pattern that repeats in them"
    return None


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique."""
    return Grow(settings, decoder)


def _work(layers: int, spec: ModelSpec) -> float:
    """Gives the products of so many layers and the head as a share of the whole model's."""
    blocks = spec.product_flops() - spec.head_flops()
    return (blocks * layers / spec.layers + spec.head_flops()) / spec.product_flops()


class Grow(Technique):
    """Leaves the upper layers out until their time comes, then copies them from those below."""

    name = "grow"

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        self.decoder, self.share = decoder, settings.share
        self.first = first_layers(settings, decoder.spec.layers)
        self.small = _work(self.first, decoder.spec)
        self.grown = False

    def before_forward(self, moment: Moment) -> None:
        """Makes the model whole where it is time."""
        if not self.grown and moment.progress >= self.share:
            self._grow()
            self.grown = True
        self.decoder.depth = None if self.grown else self.first

    def gradients(self, moment: Moment) -> None:
        """Gives the layers left out gradients of zero: they do not move."""
        if self.grown:
            return
        for weight in moment.optimiser.parameters():
            if weight.grad is None and weight.requires_grad:
                weight.grad = weight.new_zeros(weight.shape)

    def end(self, moment: Moment) -> None:
        """Makes the model whole where training ended before."""
        if not self.grown:
            self._grow()
            self.grown = True
        self.decoder.depth = None

    def work(self) -> float:
        """Gives the products of the step just taken."""
        return 1.0 if self.grown else self.small

    def state(self) -> dict[str, Tensor]:
        """Says whether the model is whole."""
        import torch

        return {"grown": torch.tensor(int(self.grown))}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts it back."""
        self.grown = bool(state["grown"])

    def _grow(self) -> None:
        blocks = self.decoder.layers()
        for layer in range(self.first, len(blocks)):
            below = blocks[layer % self.first]
            for new, old in zip(blocks[layer].parameters(), below.parameters(), strict=True):
                new.data.copy_(old.data)
            for part in (blocks[layer].mixer, blocks[layer].ffn):
                for name in part.outputs:
                    getattr(part, name).weight.data.zero_()
