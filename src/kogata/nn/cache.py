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
    before: int = 0
    """Positions that something takes before every text (`nn/adapters/front.py`)."""
    seen: Tensor | None = None
    """The ids themselves [B, length], where the model looks at pairs of them (`nn/added.py`)."""

    def rewind(self, length: int) -> None:
        """Forgets everything after the first `length` tokens."""
        for state in self.states:
            state.rewind(self.before + length)
        self.length = min(self.length, length)
        if self.seen is not None:
            self.seen = self.seen[:, : self.length]


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


class Recent:
    """Keys and values of the last `window` tokens of one block: at most twice as many are held.

    Where no more than `capacity` tokens will come, there is room for no more than these.
    """

    def __init__(
        self, batch: int, kv_heads: int, window: int, capacity: int, head_dim: int, like: Tensor
    ) -> None:
        self.window = window
        room = max(window, min(2 * window, capacity))
        self.keys = torch.empty(batch, kv_heads, room, head_dim, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.held = self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds [B, K, T, head_dim]; gives these and what the first of them may see before them."""
        new, room = keys.shape[2], self.keys.shape[2]
        before = min(self.held, self.window - 1)
        self.length += new
        if self.held + new <= room:
            end = self.held + new
            self.keys[:, :, self.held : end], self.values[:, :, self.held : end] = keys, values
            start, self.held = self.held - before, end
            return self.keys[:, :, start:end], self.values[:, :, start:end]
        old = slice(self.held - before, self.held)
        keys = torch.cat([self.keys[:, :, old], keys], 2)
        values = torch.cat([self.values[:, :, old], values], 2)
        self.held = min(self.window, keys.shape[2])
        self.keys[:, :, : self.held] = keys[:, :, -self.held :]
        self.values[:, :, : self.held] = values[:, :, -self.held :]
        return keys, values

    def rewind(self, length: int) -> None:
        """Forgets everything after the first `length` tokens, as long as what these saw is still held."""
        gone = max(0, self.length - length)
        if gone and self.held - gone < min(length, self.window - 1):
            raise NotImplementedError(f"only the last {self.held} tokens are remembered")
        self.held, self.length = self.held - gone, self.length - gone


class Nothing:
    """The state of a mixer that remembers nothing itself."""

    def rewind(self, length: int) -> None:
        """Has nothing to forget."""


class Last:
    """What a recurrent mixer carries on: tensors that stand for everything before, which cannot be undone."""

    def __init__(self) -> None:
        self.length = 0
        self.tensors: dict[str, Tensor] = {}

    def rewind(self, length: int) -> None:
        """Stays as it is, or begins anew; anything between is lost."""
        if length >= self.length:
            return
        if length:
            raise NotImplementedError("a recurrent state has no way back but to its start")
        self.tensors, self.length = {}, 0
