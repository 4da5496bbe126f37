"""What stands before every text: trained vectors where embeddings stand, or trained keys and values.

Source: prompt tuning (Lester et al. 2021, arXiv 2104.08691); prefix tuning (Li and Liang 2021,
arXiv 2101.00190), without the network that paper computes the prefix with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kogata.nn.place import Place


class Front(nn.Module):
    """Stands on a decoder as its `front`.

    Attributes:
        tokens: how many positions it takes.
        rows: what is laid before the embeddings [tokens, D]; None where it is no text.
        memory: keys and values of each layer [2, tokens, kv_heads, head_dim]; None where they are computed.
    """

    tokens: int
    rows: Tensor | None
    memory: Any

    def fill(self, decoder: Any, states: list[Any], batch: int) -> None:
        """Writes the keys and values of all layers into empty states."""
        raise NotImplementedError


class Prompt(Front):
    """Vectors that take the place of the embeddings of a text.

    Args:
        tokens: how many.
        width: of each.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.rows = nn.Parameter(torch.zeros(tokens, width))
        self.memory = None

    @torch.no_grad()
    def begin(self, decoder: Any, ids: Tensor) -> None:
        """Starts as the embeddings of a text's ids [tokens]."""
        assert self.rows is not None
        self.rows.copy_(decoder.embed(ids))

    def fill(self, decoder: Any, states: list[Any], batch: int) -> None:
        """Computes keys and values by a pass through all layers."""
        assert self.rows is not None
        place = Place(*decoder.rope(0, self.tokens, None))
        x = self.rows.expand(batch, *self.rows.shape)
        for block, state in zip(decoder.layers(), states, strict=True):
            x = block(x, place, state)


class Prefix(Front):
    """Keys and values of tokens that are none.

    Args:
        tokens: how many.
        layers: of the decoder.
        heads: of keys.
        size: of a head.
    """

    def __init__(self, tokens: int, layers: int, heads: int, size: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.rows = None
        self.memory = nn.ParameterList(
            nn.Parameter(torch.zeros(2, tokens, heads, size)) for _ in range(layers)
        )

    @torch.no_grad()
    def begin(self, decoder: Any, ids: Tensor) -> None:
        """Starts as the keys and values of a text's ids [tokens], as the decoder without it computes them."""
        cache = decoder.new_cache(1, self.tokens)
        decoder.hidden(ids[None], cache=cache)
        for own, state in zip(self.memory, cache.states, strict=True):
            own[0].copy_(state.keys[0, :, : self.tokens].transpose(0, 1))
            own[1].copy_(state.values[0, :, : self.tokens].transpose(0, 1))

    def fill(self, decoder: Any, states: list[Any], batch: int) -> None:
        """Writes them as they are."""
        for own, state in zip(self.memory, states, strict=True):
            keys, values = own.transpose(1, 2)[:, None].expand(2, batch, -1, -1, -1)
            state.append(keys, values)
