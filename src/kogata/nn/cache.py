"""What a decoder remembers between calls while it generates: one state per block, made by its mixer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class State(Protocol):
    """The memory of one mixer; attention keeps keys and values, a recurrent mixer its state."""

    def rewind(self, length: int) -> None:
        """Forgets everything after the first `length` tokens; raises NotImplementedError where it cannot."""
        ...


@dataclass
class Cache:
    """The states of all blocks, and how many tokens they have seen."""

    states: list[Any]
    capacity: int
    length: int = 0

    def rewind(self, length: int) -> None:
        """Forgets everything after the first `length` tokens."""
        for state in self.states:
            state.rewind(length)
        self.length = min(self.length, length)


class KeysValues:
    """Keys and values of one block in buffers of fixed capacity: appending copies only what is new."""

    def __init__(self, batch: int, kv_heads: int, capacity: int, head_dim: int, like: Tensor) -> None:
        self.keys = torch.empty(batch, kv_heads, capacity, head_dim, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds [B, K, T, head_dim] and gives everything remembered so far."""
        end = self.length + keys.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError(f"the cache holds {self.keys.shape[2]} tokens; {end} were given")
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def rewind(self, length: int) -> None:
        """Forgets everything after the first `length` tokens."""
        self.length = min(self.length, length)
