"""Training a model in transformers' own module: the loss on trained tokens, reading and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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

    def loss(self, batch: PackedBatch, scale: float) -> Tensor:
        """Adds up the cross-entropy of the tokens that count, times `scale`."""
        assert batch.documents is not None and batch.weights is not None
        ids, ends = batch.inputs[0], list(batch.documents[0])
        counted = batch.weights[0].nonzero()[:, 0]
        places = torch.arange(len(ids))
        if batch.shared:
            whole, ends, places = unshared(ends, batch.shared)
            ids = ids.index_select(0, whole)
        starts = [0, *ends[:-1]]
        lengths = torch.tensor([end - start for start, end in zip(starts, ends, strict=True)])
        longest = int(lengths.max())
        mask = torch.arange(longest)[None] < lengths[:, None]
        padded = torch.zeros(mask.shape, dtype=ids.dtype)
        padded[mask] = ids
        rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        at = torch.cat([torch.arange(int(length)) for length in lengths])
        wanted = places[counted]
        targets, weights = batch.targets[0][counted], batch.weights[0][counted]
        return self._loss(padded, mask, rows[wanted], at[wanted], targets, weights, scale)

    def _loss(
        self,
        ids: Tensor,
        mask: Tensor,
        rows: Tensor,
        at: Tensor,
        targets: Tensor,
        weights: Tensor,
        scale: float,
    ) -> Tensor:
        decoder = self.decoder
        if decoder.plain_head:
            found = decoder.model.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
            hidden = found.last_hidden_state[rows, at]
            return linear_cross_entropy(hidden, decoder.head_weight, targets, weights, scale=scale)
        logits = decoder.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[rows, at]
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        return (losses * weights).sum() * scale


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
