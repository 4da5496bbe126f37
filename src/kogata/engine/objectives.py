"""Objectives: what a batch's loss is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kogata.engine.frozen import KeptOutputs
from kogata.engine.rows import PackedBatch
from kogata.engine.sampler import Batch
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.packed import PackedHidden


def mixtures(decoder: nn.Module) -> list[Any]:
    """Lists the feed-forward parts whose experts are balanced: they want to know their part of a step."""
    return [module for module in decoder.modules() if hasattr(module, "part_of_step")]


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
        self.mixtures = mixtures(decoder)

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        for mixture in self.mixtures:
            mixture.part_of_step = batch.targets.numel() * scale
        if self.hidden is None or batch.documents is not None:
            hidden = self.decoder.hidden(batch.inputs, documents=batch.documents)
        else:
            hidden = self.hidden(batch.inputs)
        hidden, weight = self.decoder.for_head(hidden)
        kernels = self.kernels
        weights, losses = batch.weights, batch.losses
        if batch.weigh is not None and losses is not None:
            # How much a row counts hangs on its own loss: one more product with the head, no gradients.
            with torch.no_grad():
                linear_cross_entropy(
                    hidden.detach(), weight.detach(), batch.targets, kernels=kernels, losses=losses
                )
            weights, losses = batch.weigh(losses.mean(1))[:, None].expand_as(losses), None
        return linear_cross_entropy(
            hidden, weight, batch.targets, weights, scale=scale, kernels=kernels, losses=losses
        )


class TrainedTokens:
    """Predicts the tokens that count of packed rows; head and cross-entropy work on those alone.

    Args:
        packed: computes hidden vectors of packed rows.
        first: the lowest layer with something trained; below it nothing is kept for a backward pass.
        kept: outputs of what lies below, from the first pass on; None computes them each time.
    """

    def __init__(self, packed: PackedHidden, first: int = -1, kept: KeptOutputs | None = None) -> None:
        self.packed, self.first, self.kept = packed, first, kept
        self.mixtures = mixtures(packed.decoder)

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        assert isinstance(batch, PackedBatch) and batch.documents is not None and batch.weights is not None
        for mixture in self.mixtures:
            mixture.part_of_step = float(batch.weights.sum()) * scale
        x, ends = self._below(batch), batch.documents[0]
        packed = self.packed
        layers = len(packed.decoder.blocks)
        counted = batch.weights[0].nonzero()[:, 0]
        x = packed.blocks(x, ends, max(0, self.first), layers, counted)
        hidden, weight = packed.decoder.for_head(packed.finish(x))
        return linear_cross_entropy(
            hidden,
            weight,
            batch.targets[0][counted],
            batch.weights[0][counted],
            scale=scale,
            kernels=packed.kernels,
        )

    def _below(self, batch: PackedBatch) -> Tensor:
        """Gives what enters the lowest trained layer."""
        assert batch.documents is not None
        packed = self.packed
        if self.first <= 0:
            return packed.decoder.embed(batch.inputs[0])
        if self.kept is None:
            with torch.no_grad():
                x = packed.decoder.embed(batch.inputs[0])
                return packed.blocks(x, batch.documents[0], 0, self.first)
        ends = batch.documents[0]
        pieces = list(zip([0, *ends[:-1]], ends, strict=True))
        new = [at for at, again in enumerate(batch.again) if not again]
        found: dict[int, Tensor] = {}
        if new:
            with torch.no_grad():
                ids = torch.cat([batch.inputs[0][slice(*pieces[at])] for at in new])
                sizes = [pieces[at][1] - pieces[at][0] for at in new]
                stops = torch.tensor(sizes).cumsum(0).tolist()
                x = packed.blocks(packed.decoder.embed(ids), stops, 0, self.first)
            for at, part in zip(new, x.split(sizes), strict=True):
                self.kept.write(batch.rows[at], part)
                found[at] = self.kept.rounded(part)
        for at in range(len(pieces)):
            if at not in found:
                found[at] = self.kept.read(batch.rows[at]).to(batch.inputs.device)
        return torch.cat([found[at] for at in range(len(pieces))])
