"""An encoder's layers over rows laid end to end: no padding but inside attention; the frozen part apart.

Texts to classify are short and uneven: padded to a batch's longest row, half of the work is for nothing. So
everything that looks at one token alone (nine tenths of the work) sees all rows as one; attention, which
transformers lets others compute, parts them again, rows of like length together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.engine.encoders import Encoder, Row, layers_of

NAME = "kogata_rows"
"""Of our attention among those that transformers knows."""
UNEVEN = 1.5
"""Rows whose lengths differ by no more than this are attended together."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring rows of like length: tokens `first` to `last` of those laid end to end."""

    first: int
    last: int
    rows: int
    longest: int
    places: Tensor | None
    """Where each token lies among rows · longest places; None where all rows are of one length."""
    full: Tensor | None
    narrow: Tensor | None
    """Which keys a query may see, everywhere and in layers with a window; None: all."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Rows laid end to end, the shortest first: ids, positions and types [N], each token's row [N]."""

    ids: Tensor
    positions: Tensor
    types: Tensor | None
    owner: Tensor
    lengths: Tensor
    groups: tuple[Group, ...]


class Stack:
    """An encoder's embeddings, layers and last norm, run in parts over rows laid end to end.

    Args:
        encoder: of BERT's kind (`encoder.layer`) or ModernBERT's (`layers`).
    """

    def __init__(self, encoder: Encoder) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, _attend)
        # Attention is chosen by the config that the layers hold: another would let rows see each other.
        assert encoder.config is encoder.module.config
        self.encoder = encoder
        layers = layers_of(encoder.module)
        assert layers is not None, "an architecture whose layers are not known"
        self.layers = layers
        self.modern = hasattr(encoder.module, "final_norm")

    def lay(self, rows: Sequence[Row]) -> Laid:
        """Lays rows end to end; they come with the shortest first."""
        sizes = [len(row) for row in rows]
        assert sizes == sorted(sizes), "rows come with the shortest first"
        lengths = torch.tensor(sizes)
        types = None
        typed = getattr(self.encoder.config, "type_vocab_size", 0) > 1
        if typed and any(row.types is not None for row in rows):
            pieces = [np.zeros_like(row.ids) if row.types is None else row.types for row in rows]
            types = torch.from_numpy(np.concatenate(pieces))
        starts = torch.cumsum(lengths, 0) - lengths
        owner = torch.repeat_interleave(torch.arange(len(sizes)), lengths)
        return Laid(
            ids=torch.from_numpy(np.concatenate([row.ids for row in rows])),
            positions=torch.arange(len(owner)) - starts[owner],
            types=types,
            owner=owner,
            lengths=lengths,
            groups=tuple(self._groups(sizes)),
        )

    def _groups(self, sizes: list[int]) -> Iterator[Group]:
        window = self.encoder.config.sliding_window if self.modern else None
        start, first = 0, 0
        for at in range(1, len(sizes) + 1):
            if at < len(sizes) and sizes[at] <= max(sizes[start] + 2, UNEVEN * sizes[start]):
                continue
            lengths = torch.tensor(sizes[start:at])
            rows, longest, count = at - start, sizes[at - 1], int(lengths.sum())
            steps = torch.arange(longest)
            inside = steps[None] < lengths[:, None]
            even = bool(inside.all())
            full = None if even else inside[:, None, None]
            narrow = full
            if window is not None and longest > window:
                near = (steps[:, None] - steps[None]).abs() <= window
                narrow = near[None, None] if full is None else near[None, None] & full
            places = None if even else torch.nonzero(inside.reshape(-1)).squeeze(1)
            yield Group(first, first + count, rows, longest, places, full, narrow)
            start, first = at, first + count

    def embed(self, laid: Laid) -> Tensor:
        """Computes what the first layer reads [N, D]."""
        module = self.encoder.module
        if self.modern:
            return module.embeddings(input_ids=laid.ids[None])[0]
        positions = laid.positions + first_position(module)
        types = torch.zeros_like(laid.ids) if laid.types is None else laid.types
        return module.embeddings(
            input_ids=laid.ids[None], token_type_ids=types[None], position_ids=positions[None]
        )[0]

    def through(self, hidden: Tensor, laid: Laid, start: int, stop: int) -> Tensor:
        """Runs layers `start` to `stop` over [N, D]; the last one's norm belongs to it."""
        module, config = self.encoder.module, self.encoder.config
        turns: dict[str, Any] = {}
        if self.modern:
            kinds = set(config.layer_types[start:stop])
            turns = {kind: module.rotary_emb(hidden, laid.positions[None], kind) for kind in kinds}
        found = hidden[None]
        with _ours(config):
            for number in range(start, stop):
                more = {"position_embeddings": turns[config.layer_types[number]]} if self.modern else {}
                found = self.layers[number](found, attention_mask=None, laid=laid, **more)
        if self.modern and stop == len(self.layers):
            found = module.final_norm(found)
        return found[0]

    def pool(self, hidden: Tensor, laid: Laid) -> Tensor:
        """Gives the standardised mean of each row's tokens: [N, D] → [rows, D]."""
        total = hidden.new_zeros(len(laid.lengths), hidden.shape[1]).index_add(0, laid.owner, hidden)
        mean = total / laid.lengths[:, None]
        return F.layer_norm(mean, (hidden.shape[1],), eps=self.encoder.eps)


def first_position(module: Any) -> int:
    """Gives the number of a row's first position: RoBERTa's begin behind the padding's."""
    padding = getattr(module.embeddings, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


@contextlib.contextmanager
def _ours(config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    laid: Laid,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attends within each row: [1, H, N, d] → [1, N, H, d], as transformers asks."""
    _, heads, _, size = query.shape
    found = []
    for group in laid.groups:
        mine = (x[0, :, group.first : group.last].transpose(0, 1) for x in (query, key, value))
        q, k, v = (_part(x, group) for x in mine)
        mask = group.full if sliding_window is None else group.narrow
        made = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
        made = made.transpose(1, 2).reshape(group.rows * group.longest, heads, size)
        found.append(made if group.places is None else made[group.places])
    return torch.cat(found)[None], None


def _part(tokens: Tensor, group: Group) -> Tensor:
    """Parts a group's tokens into rows: [n, H, d] → [rows, H, longest, d]."""
    if group.places is not None:
        filled = tokens.new_zeros(group.rows * group.longest, *tokens.shape[1:])
        tokens = filled.index_copy(0, group.places, tokens)
    return tokens.reshape(group.rows, group.longest, *tokens.shape[1:]).transpose(1, 2)
