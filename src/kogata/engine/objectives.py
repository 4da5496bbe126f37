"""Objectives: what a batch's loss is."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kogata.engine.sampler import Batch
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy


class LanguageModelling:
    """Predicts each next token: cross-entropy, chunk by chunk.

    Args:
        decoder: the model.
        hidden: computes hidden vectors [B, T, D] of ids instead of `decoder.hidden` (fused or compiled).
        kernels: for the loss.
    """

    def __init__(
        self,
        decoder: Decoder,
        hidden: Callable[[Tensor], Tensor] | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.decoder, self.hidden, self.kernels = decoder, hidden, kernels

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        if self.hidden is None or batch.documents is not None:
            hidden = self.decoder.hidden(batch.inputs, documents=batch.documents)
        else:
            hidden = self.hidden(batch.inputs)
        weight, kernels = self.decoder.head_weight, self.kernels
        return linear_cross_entropy(
            hidden, weight, batch.targets, batch.weights, scale=scale, kernels=kernels
        )
