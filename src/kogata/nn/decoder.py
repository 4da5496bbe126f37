"""Decoder: token ids in, hidden vectors out. One clean module for every family a ModelSpec can state.

Names of its weights (`i` a block's number): `embed.weight`; `blocks.i.mixer_norm.weight`,
`blocks.i.mixer.qkv.weight`, `.qkv.bias`, `.q_norm.weight`, `.k_norm.weight`, `.out.weight`;
`blocks.i.ffn_norm.weight`, `blocks.i.ffn.gate_up.weight` or `.up.weight`, `.down.weight`; `norm.weight`;
`head.weight` when the head is untied. Other mixers and feed-forward parts name theirs in their own files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kogata.core.registry import registry
from kogata.nn import mixers
from kogata.nn.added import Added
from kogata.nn.cache import Cache
from kogata.nn.dropping import dropped
from kogata.nn.linear import (
    FactorisedEmbedding,
    embedding,
    factorised_embedding,
    linear,
    scaled_embedding,
)
from kogata.nn.loops import Loops
from kogata.nn.norm import AfterNorm, CentredNorm, make_norm
from kogata.nn.place import Place
from kogata.nn.rope import Rope
from kogata.nn.spec import ModelSpec


class Block(nn.Module):
    """One layer: a mixer and a feed-forward part, each normalised before and added after."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        mixer = mixers.find(spec.mixer(layer))
        ffn = registry.variant("nn.ffn", spec.ffn)
        self.mixer_norm = make_norm(spec, spec.width)
        self.mixer = mixer.Mixer(spec, layer)
        self.ffn_norm = make_norm(spec, spec.width)
        self.ffn = ffn.FeedForward(spec, layer)
        after = spec.sandwich_norms
        self.mixer_after = AfterNorm(spec.width, eps=spec.norm_eps) if after else None
        self.ffn_after = AfterNorm(spec.width, eps=spec.norm_eps) if after else None
        self.dropout = 0.0
        """Share of what is added that is dropped, while a technique says so."""

    def forward(self, x: Tensor, place: Place, state: Any = None) -> Tensor:
        """Works on x [B, T, D]."""
        if self.mixer_after is not None and self.ffn_after is not None:
            x = x + dropped(self.mixer_after(self.mixer(self.mixer_norm(x), place, state)), self.dropout)
            return x + dropped(self.ffn_after(self.ffn(self.ffn_norm(x))), self.dropout)
        x = x + dropped(self.mixer(self.mixer_norm(x), place, state), self.dropout)
        return x + dropped(self.ffn(self.ffn_norm(x)), self.dropout)


class Decoder(nn.Module):
    """A causal language model in float32, without its loss.

    Args:
        spec: the model's shape.
        seed: initialises the weights; None leaves them unset, for a caller that fills them.
    """

    def __init__(self, spec: ModelSpec, seed: int | None = 0) -> None:
        super().__init__()
        self.spec = spec
        self.embed = _embedding(spec)
        self.blocks = nn.ModuleList(Block(spec, layer) for layer in spec.stored_layers())
        self.norm = make_norm(spec, spec.width)
        self.head = None if spec.tied else _head(spec)
        turned = spec.rotary_dim or spec.head_dim
        self.rope = Rope(turned, spec.rope_theta, spec.rope_scaling, spec.context, spec.local_rope_theta)
        self.added = None if spec.additions is None else Added(spec)
        self.loops = None if spec.sharing is None else Loops(spec, list(self.blocks))
        self.cap = spec.added().cap
        self.recompute = False
        """Whether the backward pass computes each block again, instead of keeping what is in it."""
        self.depth: int | None = None
        """Blocks in use while a model grows, counted from the first; None: all of them."""
        self.mask: nn.Parameter | None = None
        """Stands for hidden inputs, while a technique hides some: no part of the model that is kept."""
        self.front: Any = None
        """What stands before every text (`nn/adapters/front.py`)."""
        if seed is not None:
            initialise(self, seed)

    def layers(self) -> list[Block]:
        """Lists the blocks, typed; one that several layers share stands there once."""
        return cast(list[Block], list(self.blocks))

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]; the embedding's own when tied."""
        rows = self.embed if self.head is None else self.head
        return rows.whole() if isinstance(rows, FactorisedEmbedding) else rows.weight

    def for_head(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Gives vectors and rows whose products are the logits: `hidden` and the head, or both narrow."""
        rows = self.embed if self.head is None else self.head
        if isinstance(rows, FactorisedEmbedding):
            return rows.narrow(hidden), rows.weight
        return hidden, rows.weight

    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        documents: Sequence[Sequence[int]] | None = None,
        masked: Tensor | None = None,
    ) -> Tensor:
        """Computes the last hidden vectors [B, T, D], normalised: `logits` is one product away.

        Args:
            ids: token ids [B, T].
            positions: their positions [T] or [B, T]; by default they follow on from the cache.
            cache: from `new_cache`; is extended by these tokens.
            documents: per row, where each document ends (the last entry is T): no token then sees another
                document. Not together with a cache.
            masked: inputs that are hidden [B, T]; rows are then read both ways. Their ids still choose what
                stands beside the layers (`nn/additions.py`): give others in their place.
        """
        assert masked is None or (documents is None and cache is None and self.front is None)
        assert cache is None or documents is None, "packed documents are for training, a cache for generating"
        if self.front is not None and cache is None:
            assert documents is None, "what stands before a text is packed by nn/packed.py alone"
            cache = self.new_cache(*ids.shape)
        borders = None if documents is None else [list(row) for row in documents]
        if borders is not None:
            assert len(borders) == ids.shape[0] and all(row[-1] == ids.shape[1] for row in borders)
        start = 0 if cache is None else cache.before + cache.length
        cos, sin = self.rope(start, ids.shape[1], positions)
        place = Place(cos, sin, borders, causal=masked is None)
        x = self.embedded(ids, masked)
        added = self.added
        if added is not None:
            x = added.start(x, ids, cache, borders)
        states = [None] * self.spec.layers if cache is None else cache.states
        if self.loops is None:
            first = x
            for layer, block in enumerate(self.blocks[: self.depth]):
                here = place
                if added is not None:
                    x, here = added.scale(layer, x, first), replace(place, values=added.values_of(layer, ids))
                x = self._through(block, x, here, states[layer])
        else:
            x = self.loops.run(list(self.blocks), x, place, states)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.norm(x)

    def embedded(self, ids: Tensor, masked: Tensor | None = None) -> Tensor:
        """Gives the embeddings [B, T, D] of ids [B, T], the mask where `masked` says so."""
        x = self.embed(ids)
        if masked is None:
            return x
        assert self.mask is not None, "hidden inputs need a mask"
        return torch.where(masked[..., None], self.mask, x)

    def _through(self, block: nn.Module, x: Tensor, place: Place, state: Any) -> Tensor:
        if self.recompute and state is None and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, x, place, use_reentrant=False))
        return block(x, place, state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes the scores of every token of the vocabulary, [..., V]."""
        logits = F.linear(*self.for_head(hidden))
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def forward(self, ids: Tensor) -> Tensor:
        """Computes logits [B, T, V] of ids [B, T]; training uses `hidden` and a chunked loss instead."""
        return self.logits(self.hidden(ids))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> Cache:
        """Makes an empty cache for `capacity` tokens (by default the spec's context)."""
        capacity, blocks = capacity or self.spec.context, self.layers()
        order = range(len(blocks)) if self.loops is None else self.loops.order
        before = 0 if self.front is None else self.front.tokens
        states = [blocks[number].mixer.new_state(batch, before + capacity) for number in order]
        if self.front is not None:
            self.front.fill(self, states, batch)
        return Cache(states, capacity, before=before)


def _embedding(spec: ModelSpec) -> nn.Embedding:
    if spec.embed_width is not None:
        return factorised_embedding(spec.vocab_size, spec.embed_width, spec.width)
    if spec.embed_scale != 1.0:
        return scaled_embedding(spec.vocab_size, spec.width, spec.embed_scale)
    return embedding(spec.vocab_size, spec.width)


def _head(spec: ModelSpec) -> nn.Linear | FactorisedEmbedding:
    if spec.embed_width is not None:
        return factorised_embedding(spec.vocab_size, spec.embed_width, spec.width)
    return linear(spec.width, spec.vocab_size)


@torch.no_grad()
def initialise(decoder: Decoder, seed: int) -> None:
    """Sets every weight from the seed alone, whatever the global random state is.

    Matrices are normal with deviation 0.5/√(inputs); layers that write into the residual stream start at
    zero, so that every block begins as the identity; gains at one, biases at zero. Where a norm stands after
    a mixer, its gain starts at zero in their place. A part with weights of another kind sets them itself, in
    `initialise(generator)`.
    """
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        id(getattr(part, name))
        for part in decoder.modules()
        for name in getattr(part, "outputs", ())
        if not decoder.spec.sandwich_norms
    }
    for module in decoder.modules():
        if isinstance(module, AfterNorm):
            module.weight.fill_(-1.0)
        elif isinstance(module, CentredNorm):
            module.weight.zero_()
        elif isinstance(module, nn.RMSNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.02, generator=generator)
        elif isinstance(module, nn.Linear):
            if id(module) in outputs:
                module.weight.zero_()
            elif module is decoder.head:
                module.weight.normal_(0.0, 0.02, generator=generator)
            else:
                module.weight.normal_(0.0, 0.5 * module.in_features**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        own = getattr(module, "initialise", None)
        if own is not None:
            own(generator)
