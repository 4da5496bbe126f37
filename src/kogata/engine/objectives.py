"""Objectives: what a batch's loss is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kogata.engine.frozen import KeptOutputs
from kogata.engine.rows import Block, PackedBatch
from kogata.engine.sampler import Batch
from kogata.nn.decoder import Decoder
from kogata.nn.fused import FusedHidden
from kogata.nn.kernels import Kernels
from kogata.nn.losses import SoftTargets, linear_cross_entropy
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
        self.narrow = False
        """Whether the products of the blocks are computed in bfloat16."""
        self.teacher: Callable[[Batch], SoftTargets] | None = None
        """Moves targets, while a technique says so."""

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        for mixture in self.mixtures:
            mixture.part_of_step = batch.targets.numel() * scale
        with torch.autocast(batch.inputs.device.type, dtype=torch.bfloat16, enabled=self.narrow):
            if batch.masked is not None:
                # One that torch.compile made is for rows that are read forwards: another would be compiled.
                both = self.hidden if isinstance(self.hidden, FusedHidden) else self.decoder.hidden
                hidden = both(batch.inputs, masked=batch.masked)
            elif self.hidden is None or batch.documents is not None:
                hidden = self.decoder.hidden(batch.inputs, documents=batch.documents)
            else:
                hidden = self.hidden(batch.inputs)
        hidden, weight = self.decoder.for_head(hidden.float())
        kernels, cap = self.kernels, self.decoder.cap
        weights, losses = batch.weights, batch.losses
        if batch.weigh is not None and losses is not None:
            # How much a row counts hangs on its own loss: one more product with the head, no gradients.
            with torch.no_grad():
                linear_cross_entropy(
                    hidden.detach(), weight.detach(), batch.targets, kernels=kernels, losses=losses, cap=cap
                )
            weights, losses = batch.weigh(losses.mean(1))[:, None].expand_as(losses), None
        soft = None if self.teacher is None or batch.masked is not None else self.teacher(batch)
        own: dict[str, Any] = {"kernels": kernels, "losses": losses, "cap": cap, "soft": soft}
        return linear_cross_entropy(hidden, weight, batch.targets, weights, scale=scale, **own)


class TrainedTokens:
    """Predicts the tokens that count of packed rows; head and cross-entropy work on those alone.

    Args:
        packed: computes hidden vectors of packed rows.
        first: the lowest layer with something trained; below it nothing is kept for a backward pass.
        kept: outputs of what lies below, from the first pass on; None computes them each time.
    """

    def __init__(self, packed: PackedHidden, first: int = -1, kept: KeptOutputs | None = None) -> None:
        self.packed, self.first, self.kept = packed, first, kept
        self._block: Block | None = None
        self._ahead: dict[int, Tensor] = {}
        """What the lower layers made of the rows of this block of steps."""
        self.mixtures = mixtures(packed.decoder)

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        assert isinstance(batch, PackedBatch) and batch.documents is not None and batch.weights is not None
        own = getattr(self.packed, "loss", None)
        if own is not None:
            return own(batch, scale, self.first, self.kept)
        for mixture in self.mixtures:
            mixture.part_of_step = float(batch.weights.sum()) * scale
        x, ends = self._below(batch), batch.documents[0]
        packed = self.packed
        layers = len(packed.decoder.blocks)
        counted = predicted = batch.weights[0].nonzero()[:, 0]
        shared, front = batch.shared, packed.decoder.front
        if front is not None and front.rows is not None:
            # They stand where a beginning stands that all documents share.
            x, ends = torch.cat([front.rows, x]), [front.tokens + end for end in ends]
            shared, counted = front.tokens + shared, front.tokens + counted
        x = packed.blocks(x, ends, max(0, self.first), layers, counted, shared)
        hidden, weight = packed.decoder.for_head(packed.finish(x))
        return linear_cross_entropy(
            hidden,
            weight,
            batch.targets[0][predicted],
            batch.weights[0][predicted],
            scale=scale,
            kernels=packed.kernels,
        )

    def _below(self, batch: PackedBatch) -> Tensor:
        """Gives what enters the lowest trained layer."""
        assert batch.documents is not None
        packed, kept, ids, ends = self.packed, self.kept, batch.inputs[0], batch.documents[0]
        if self.first <= 0:
            return packed.decoder.embed(ids)
        if kept is not None or batch.block is not None:
            block = batch.block
            if block is None:
                assert kept is not None
                block = Block(of=kept.rows, rows=batch.rows, again=batch.again)
            return self._from_block(batch, block)
        with torch.no_grad():
            return self._frozen(ids, ends, batch.shared)

    def _from_block(self, batch: PackedBatch, block: Block) -> Tensor:
        """Gives what enters the lowest trained layer, the frozen ones computed for all rows of a block."""
        kept, device = self.kept, batch.inputs.device
        needed = {
            row for row, again in zip(batch.rows, batch.again, strict=True) if kept is None or not again
        }
        # A row that an earlier block has too is computed in its own: a run resumed there knows no other.
        if needed and block is not self._block:
            fresh = zip(block.rows, block.again, strict=True)
            rows = list(dict.fromkeys(row for row, again in fresh if kept is None or not again))
            whole = block.of.pack(rows)
            assert whole.documents is not None
            ends, shared = whole.documents[0], whole.shared
            with torch.no_grad():
                x = self._frozen(whole.inputs[0].to(device), ends, shared)
            self._block, self._ahead = block, {}
            for row, start, stop in zip(rows, [0, *ends[:-1]], ends, strict=True):
                found = torch.cat([x[:shared], x[start:stop]]) if start else x[:stop].clone()
                if kept is not None:
                    kept.write(row, found)
                    found = kept.rounded(found)
                self._ahead[row] = found
        pieces = []
        for at, row in enumerate(batch.rows):
            found = self._ahead[row] if row in needed else kept.read(row).to(device)  # type: ignore[union-attr]
            pieces.append(found[batch.shared if at else 0 :])
        return torch.cat(pieces)

    def _frozen(self, ids: Tensor, ends: list[int], shared: int) -> Tensor:
        return self.packed.blocks(self.packed.decoder.embed(ids), ends, 0, self.first, shared=shared)
