"""Text encoders: loaded, fed rows of like length so that little is padded, pooled to one vector a text.

A text's vector is the mean over its tokens, standardised: mean 0 and variance 1 over its own entries. That
is nearly the unit length of sentence embeddings, and the classification heads of BERT's relatives and of
ModernBERT can express it exactly (engine/classify/_model.py).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.core.errors import RecipeError
from kogata.engine.sources import Source

Text = str | tuple[str, str]
"""A text, or a pair of texts."""

LONGEST = 512
"""Tokens of a text that are read at most, where the model would read more."""
BATCH_TOKENS = 4096
"""Tokens of one forward pass when nothing is trained."""
UNEVEN = 1.15
"""A batch's longest row over its shortest, at most: what is padded stays below a seventh."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text's token ids, special ones included; `types` tells the texts of a pair apart."""

    ids: np.ndarray
    types: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows as one tensor: ids [B, T], mask [B, T] (None: nothing is padded), types [B, T] of pairs."""

    ids: Tensor
    mask: Tensor | None
    types: Tensor | None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers from drawing bars and tables of what it loads: a missing pooler is no news here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def pad(rows: Sequence[Row], pad_id: int) -> Padded:
    """Lays rows side by side, filled up to the longest."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    types = np.zeros_like(ids) if any(row.types is not None for row in rows) else None
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row.ids
        if types is not None and row.types is not None:
            types[number, : len(row)] = row.types
    lengths = torch.tensor([len(row) for row in rows])
    even = int(lengths.min()) == longest
    return Padded(
        torch.from_numpy(ids),
        None if even else torch.arange(longest)[None] < lengths[:, None],
        None if types is None else torch.from_numpy(types),
    )


def buckets(lengths: Sequence[int], tokens: int = BATCH_TOKENS) -> Iterator[np.ndarray]:
    """Parts rows into batches of like length: at most `tokens` with their padding, one row at least."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    for at in range(1, len(order) + 1):
        if at < len(order):
            longest, shortest = lengths[order[at]], lengths[order[start]]
            if (at - start + 1) * longest <= tokens and longest <= max(shortest + 1, UNEVEN * shortest):
                continue
        yield order[start:at]
        start = at


def pool(hidden: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    """Gives the standardised mean of each row's tokens: [B, T, D] → [B, D]."""
    if mask is None:
        mean = hidden.mean(1)
    else:
        shares = mask.to(hidden.dtype)
        mean = (hidden * shares[..., None]).sum(1) / shares.sum(1, keepdim=True)
    return F.layer_norm(mean, (hidden.shape[-1],), eps=eps)


def refuse_decoder(source: Source) -> None:
    """Refuses a model that is no text encoder.

    Raises:
        RecipeError: it is a decoder.
    """
    if source.role != "encoder":
        raise RecipeError(
            "this model is no text encoder",
            where=str(source.name),
            found=f"architecture {source.architecture}, a decoder",
            expected="an encoder of BERT's kind (bert, roberta, modernbert …)",
            remedy="name an encoder in model.read, for example {name: minilm}",
        )


class Encoder:
    """A text encoder of transformers with its tokenizer, in float32.

    Attributes:
        module: transformers' base model, without a pooler.
        folder: its Hugging Face folder.
        context: tokens of a text that are read; what stands behind is cut off and counted.
        truncated: texts that were cut off so far.
    """

    def __init__(self, module: Any, tokenizer: Any, folder: Path, context: int) -> None:
        self.module: Any = module
        self.folder, self.context = folder, context
        self.config = module.config
        self.pad_id = int(getattr(self.config, "pad_token_id", None) or 0)
        self.truncated = 0
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(max_length=context)
        self._rows: dict[Text, Row] = {}
        self._vectors: dict[Text, Tensor] = {}

    @staticmethod
    def load(folder: Path, context: int | None = None) -> Encoder:
        """Loads the encoder that lies in a folder.

        Raises:
            RecipeError: the folder holds a decoder.
        """
        from kogata.engine.load import load_model

        with quietly():
            loaded = load_model(folder)
        refuse_decoder(loaded.source)
        module: Any = loaded.decoder
        if getattr(module, "pooler", None) is not None:
            module.pooler = None
        most = min(loaded.context or LONGEST, LONGEST)
        return Encoder(module, loaded.tokenizer, loaded.folder, min(context or most, most))

    @property
    def width(self) -> int:
        """The size of a vector."""
        return int(self.config.hidden_size)

    @property
    def eps(self) -> float:
        """What the model's own norms add to a variance."""
        found = getattr(self.config, "layer_norm_eps", None) or getattr(self.config, "norm_eps", None)
        return float(found or 1e-12)

    def copy(self) -> Encoder:
        """Gives an encoder of its own weights; what texts were cut into is shared, their vectors are not."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module)
        other.config = other.module.config
        other._vectors = {}
        return other

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """Gives the token ids of texts; each is tokenised once."""
        new = list(dict.fromkeys(text for text in texts if text not in self._rows))
        for text, found in zip(new, self._tokenizer.encode_batch(new), strict=True):
            self.truncated += bool(found.overflowing)
            types = np.array(found.type_ids, dtype=np.int64) if isinstance(text, tuple) else None
            self._rows[text] = Row(np.array(found.ids, dtype=np.int64), types)
        return [self._rows[text] for text in texts]

    def hidden(self, batch: Padded) -> Tensor:
        """Computes the last hidden vectors [B, T, D]."""
        more: dict[str, Any] = {}
        if batch.types is not None and getattr(self.config, "type_vocab_size", 0) > 1:
            more["token_type_ids"] = batch.types
        if batch.mask is not None:
            more["attention_mask"] = batch.mask.long()
        return self.module(input_ids=batch.ids, **more).last_hidden_state

    def pooled(self, batch: Padded) -> Tensor:
        """Computes the vectors of a batch, ready for training through it."""
        return pool(self.hidden(batch), batch.mask, self.eps)

    def vectors(self, texts: Sequence[Text], watch: Any = None) -> Tensor:
        """Computes the vectors [n, D] of texts, each once as long as the weights stay.

        Args:
            texts: what to embed.
            watch: called with (texts done, texts in all) after each batch.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        rows = self.rows(new)
        self.module.eval()
        done = 0
        with torch.no_grad():
            for chosen in buckets([len(row) for row in rows]):
                found = self.pooled(pad([rows[i] for i in chosen], self.pad_id))
                self._vectors.update(zip((new[i] for i in chosen), found, strict=True))
                done += len(chosen)
                if watch is not None:
                    watch(done, len(new))
        return torch.stack([self._vectors[text] for text in texts]) if texts else torch.zeros(0, self.width)


def layers_of(module: Any) -> nn.ModuleList | None:
    """Gives an encoder's layers, where they can be run one by one; None for architectures not known here."""
    kind = getattr(module.config, "model_type", "")
    if kind == "modernbert":
        return module.layers
    if kind in POST_NORM:
        return module.encoder.layer
    return None


POST_NORM = ("bert", "roberta", "xlm-roberta", "camembert")
"""Architectures whose layers end with a norm and attend in BERT's way."""
