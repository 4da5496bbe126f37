"""Training a model in transformers' own module: the loss on trained tokens, reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.engine.frozen import KeptOutputs
from kogata.engine.hf_folder import copy_tokenizer
from kogata.engine.load import Foreign
from kogata.engine.rows import PackedBatch
from kogata.nn.decoder import Decoder
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.packed import unshared


class ForeignPacked:
    """Stands where `PackedHidden` stands, for a model of transformers: rows are padded, and masked.

    Args:
        decoder: the model.
    """

    kernels = None

    def __init__(self, decoder: Foreign) -> None:
        self.decoder = decoder

    @property
    def width(self) -> int:
        """Of a hidden vector between layers."""
        return self.decoder.layers.width

    def loss(
        self, batch: PackedBatch, scale: float, first: int = -1, kept: KeptOutputs | None = None
    ) -> Tensor:
        """Adds up the cross-entropy of the tokens that count, times `scale`.

        Args:
            batch: rows laid end to end.
            scale: of the sum.
            first: the lowest layer with something trained; below it nothing is kept for a backward pass.
            kept: outputs of what lies below, from the first pass on; None computes them each time.
        """
        rows = _Padded.of(batch)
        if first <= 0:
            return self._loss(rows, scale)
        given = seen = None
        if kept is not None and not any(batch.again):
            seen = partial(_keep, kept, batch.rows, rows.lengths)
        elif kept is not None:
            given = self._given(batch, rows, first, kept)
        return self.decoder.layers.run(lambda: self._loss(rows, scale), first, given=given, seen=seen)

    def below(self, batch: PackedBatch, first: int) -> Tensor:
        """Computes what enters a layer, [rows, longest, width]."""
        return self._below(_Padded.of(batch), first)

    @torch.no_grad()
    def _below(self, rows: _Padded, first: int) -> Tensor:
        found: list[Tensor] = []

        def seen(x: Tensor) -> Tensor:
            found.append(x)
            return x

        self.decoder.layers.run(lambda: self._hidden(rows), first, seen=seen, only_below=True)
        return found[0]

    def _given(self, batch: PackedBatch, rows: _Padded, first: int, kept: KeptOutputs) -> Tensor:
        """Gives what enters the lowest trained layer: as it was kept, computed for rows that are new."""
        given = torch.zeros(*rows.ids.shape, kept.width)
        new = [at for at, again in enumerate(batch.again) if not again]
        if new:
            some = rows.only(new)
            numbers = [batch.rows[at] for at in new]
            given[new, : some.ids.shape[1]] = _keep(kept, numbers, some.lengths, self._below(some, first))
        for at, row in enumerate(batch.rows):
            if batch.again[at]:
                given[at, : rows.lengths[at]] = kept.read(row)
        return given.to(rows.ids.device)

    def _hidden(self, rows: _Padded) -> Tensor:
        found = self.decoder.model.base_model(
            input_ids=rows.ids, attention_mask=rows.mask.long(), use_cache=False
        )
        return found.last_hidden_state

    def _loss(self, rows: _Padded, scale: float) -> Tensor:
        decoder, chosen = self.decoder, (rows.rows, rows.at)
        if decoder.plain_head:
            hidden = self._hidden(rows)[chosen]
            return linear_cross_entropy(hidden, decoder.head_weight, rows.targets, rows.weights, scale=scale)
        found = decoder.model(input_ids=rows.ids, attention_mask=rows.mask.long(), use_cache=False)
        losses = F.cross_entropy(found.logits[chosen].float(), rows.targets, reduction="none")
        return (losses * rows.weights).sum() * scale


@dataclass(frozen=True, kw_only=True)
class _Padded:
    """Rows side by side, padded behind, and the places whose next token counts."""

    ids: Tensor
    lengths: list[int]
    mask: Tensor
    rows: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor

    @staticmethod
    def of(batch: PackedBatch) -> _Padded:
        """Lays rows that lie end to end side by side."""
        assert batch.documents is not None and batch.weights is not None
        ids, ends = batch.inputs[0], list(batch.documents[0])
        counted = batch.weights[0].nonzero()[:, 0]
        places = torch.arange(len(ids))
        if batch.shared:
            whole, ends, places = unshared(ends, batch.shared)
            ids = ids.index_select(0, whole)
        starts = [0, *ends[:-1]]
        lengths = torch.tensor([end - start for start, end in zip(starts, ends, strict=True)])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        padded = torch.zeros(mask.shape, dtype=ids.dtype)
        padded[mask] = ids
        rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        at = torch.cat([torch.arange(int(length)) for length in lengths])
        wanted = places[counted]
        return _Padded(
            ids=padded,
            lengths=lengths.tolist(),
            mask=mask,
            rows=rows[wanted],
            at=at[wanted],
            targets=batch.targets[0][counted],
            weights=batch.weights[0][counted],
        )

    def only(self, chosen: list[int]) -> _Padded:
        """Gives some of the rows, for what is computed below the head."""
        lengths = [self.lengths[at] for at in chosen]
        most = max(lengths)
        return replace(self, ids=self.ids[chosen, :most], mask=self.mask[chosen, :most], lengths=lengths)


def _keep(kept: KeptOutputs, numbers: Sequence[int], lengths: list[int], x: Tensor) -> Tensor:
    """Keeps what enters a layer [rows, longest, width], and gives it as it is kept; zeros for padding."""
    found = torch.zeros_like(x)
    for at, (row, length) in enumerate(zip(numbers, lengths, strict=True)):
        kept.write(row, x[at, :length])
        found[at, :length] = kept.rounded(x[at, :length])
    return found


def load_any(folder: Path) -> Any:
    """Reads the decoder of a folder: ours, or transformers' behind the same calls."""
    from kogata.engine.convert import load_decoder
    from kogata.engine.hf_config import try_spec
    from kogata.engine.hf_folder import read_config
    from kogata.engine.load import load_model

    if try_spec(read_config(folder)) is not None:
        return load_decoder(folder)
    return load_model(folder).decoder


def save_any(decoder: Any, folder: Path, *, tokenizer_files_from: Path) -> None:
    """Writes a decoder as a Hugging Face folder with its tokenizer."""
    from kogata.engine.convert import save_decoder

    if isinstance(decoder, Decoder):
        save_decoder(decoder, folder, tokenizer_files_from=tokenizer_files_from)
        return
    decoder.model.save_pretrained(folder)
    copy_tokenizer(tokenizer_files_from, folder)
