"""The modules of `nn/additions.py`: scales of the residual stream, tables of values and of token pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.nn.cache import Cache
from kogata.nn.spec import ModelSpec

FIRST, SECOND = 2_654_435_761, 2_246_822_519
"""Odd numbers near 2^32 that spread ids over the rows (Knuth's, and xxHash's)."""


class Added(nn.Module):
    """What a decoder adds beside its layers.

    Weights: `scales` [layers, 2], `ngrams` [rows, width], `values.i` [vocabulary, kv_width], i a layer.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        chosen = spec.added()
        self.none = spec.vocab_size
        """Stands for the token before the first one."""
        self.scales = nn.Parameter(torch.empty(spec.layers, 2)) if chosen.scales else None
        self.ngrams = nn.Parameter(torch.empty(chosen.ngrams, spec.width)) if chosen.ngrams else None
        self.values = nn.ParameterDict(
            {
                str(layer): nn.Parameter(torch.empty(spec.vocab_size, spec.kv_width))
                for layer in chosen.value_layers(spec)
            }
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Starts with nothing added."""
        for weight in self.parameters():
            weight.zero_()
        if self.scales is not None:
            self.scales[:, 0] = 1.0

    def start(
        self,
        x: Tensor,
        ids: Tensor,
        cache: Cache | None = None,
        documents: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """Adds the rows of pairs to the embeddings x [B, T, D] of ids [B, T]."""
        if self.ngrams is None:
            return x
        before = torch.full_like(ids, self.none)
        before[:, 1:] = ids[:, :-1]
        if cache is not None:
            if cache.seen is not None and cache.seen.shape[1]:
                before[:, 0] = cache.seen[:, -1]
            cache.seen = ids if cache.seen is None else torch.cat([cache.seen, ids], 1)
        for row, ends in enumerate(documents or ()):
            before[row, list(ends[:-1])] = self.none
        rows = ((before * FIRST + ids * SECOND) >> 8) % self.ngrams.shape[0]
        return x + F.embedding(rows, self.ngrams)

    def scale(self, layer: int, x: Tensor, first: Tensor) -> Tensor:
        """Gives what enters a layer, from the stream x and from what entered the first layer."""
        return x if self.scales is None else self.scales[layer, 0] * x + self.scales[layer, 1] * first

    def values_of(self, layer: int, ids: Tensor) -> Tensor | None:
        """Gives what is added to a layer's values, [B, T, kv_width]; None where it has no table."""
        name = str(layer)
        return F.embedding(ids, self.values[name]) if name in self.values else None
