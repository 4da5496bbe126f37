"""What samplers draw from: the tokens of a run and how it takes them, and windows that stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.errors import DataError, RecipeError
from kogata.engine.sampler import Batch, WindowSampler, batches
from kogata.engine.tokens import TokenStore


@dataclass(frozen=True, kw_only=True)
class Supply:
    """The tokens of a training run and how it takes them."""

    store: TokenStore
    folder: Path
    """Of the tokens; `tokenizer/` lies in it."""
    facts: dict[str, Any]
    """Of the tokens."""
    context: int
    """Tokens of a window."""
    batch: int
    """Tokens of a step, over all processes."""
    micro: int
    """Tokens of a forward pass at most."""
    seed: int
    device: str = "cpu"
    label: str = "train.pretrain"
    """The stage's, for errors."""
    apart: bool = False
    """Whether no token may see another document than its own."""
    say: Callable[[str], None] = lambda text: None
    """Tells the person who watches."""

    def rows(self, context: int) -> int:
        """Gives the rows of a step with windows of some length."""
        return max(1, self.batch // context)

    def micro_rows(self, context: int) -> int:
        """Gives the rows of a forward pass with windows of some length."""
        return max(1, self.micro // context)

    def window_sampler(self, context: int, number: int, documents: np.ndarray | None = None) -> WindowSampler:
        """Makes the sampler of shuffled windows; `number` tells apart several of one run."""
        return WindowSampler(
            self.store.ids,
            self.store.offsets,
            context=context,
            batch=self.rows(context),
            micro=self.micro_rows(context),
            seed=self.seed * 7 + number,
            device=self.device,
            documents=documents,
            apart=self.apart,
        )

    def source_names(self) -> list[str]:
        """Names the sources that the documents tell apart.

        Raises:
            RecipeError: the tokens know of no sources.
        """
        names: list[str] = list(self.facts.get("sources") or {})
        if len(names) < 2 or self.store.sources is None:
            raise RecipeError(
                "the training text has no sources to sample from",
                where=f"stage {self.label}, sampling",
                found="one source" if names else "tokens without names of sources",
                expected="tokens of a mixture",
                remedy="give each source a data.read of its own, and data.mix before tokenizer.encode",
            )
        return names

    def documents_by_source(self) -> dict[str, np.ndarray]:
        """Gives the numbers of each source's documents.

        Raises:
            RecipeError: the tokens know of no sources.
            DataError: a source fills no window.
        """
        names, lengths = self.source_names(), np.diff(np.asarray(self.store.offsets, dtype=np.int64))
        found: dict[str, np.ndarray] = {}
        for number, name in enumerate(names):
            documents = np.nonzero(self.store.sources == number)[0]
            tokens = int(lengths[documents].sum())
            if tokens <= self.context:
                raise DataError(
                    f"the source {name} fills no window",
                    where=f"stage {self.label}, sampling",
                    found=f"{tokens:,} tokens in {len(documents):,} documents",
                    expected=f"more than the context of {self.context}",
                    remedy="give more of it, leave it out, or choose a smaller `context`",
                )
            found[name] = documents
        return found


class FixedWindows:
    """Windows that are the same in every epoch: the stream in its order, cut every `context` tokens.

    Each token is a target of one window (the last window reaches back to be full). The first window is
    predicted from the end token of the last document, as every other document's first token is from the
    end of the one before.

    Args:
        supply: the tokens.
        context: targets of a window.
    """

    def __init__(self, supply: Supply, context: int) -> None:
        self.ids, self.tokens = supply.store.ids, supply.store.tokens
        self.offsets = np.asarray(supply.store.offsets, dtype=np.int64)
        self.context, self.device = context, supply.device
        self.micro = supply.micro_rows(context)
        self.starts = np.minimum(
            np.arange(-(-self.tokens // context), dtype=np.int64) * context, self.tokens - context
        )

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Reads windows: int64 [n, context + 1], the first column being what comes before."""
        return read_rows(self.ids, self.starts[numbers], self.context)

    def parts(
        self,
        numbers: np.ndarray,
        rank: int = 0,
        world: int = 1,
        *,
        pieces: int = 1,
        weights: np.ndarray | None = None,
        losses: bool = False,
    ) -> Iterator[Batch]:
        """Cuts windows into forward passes and gives this process's part of them.

        Args:
            numbers: of the windows, of all processes together.
            rank: of this process.
            world: processes.
            pieces: rows that a window is cut into, of equal length; the context must be divisible.
            weights: how much each window counts [n]; None counts each once.
            losses: make room for the losses.
        """
        length = self.context // pieces
        starts = (self.starts[numbers][:, None] + np.arange(pieces) * length).ravel()
        shares = None if weights is None else np.repeat(weights.astype(np.float32), pieces)

        def weights_of(first: int, last: int) -> np.ndarray:
            assert shares is not None
            return np.repeat(shares[first:last, None], length, 1)

        return batches(
            lambda first, last: read_rows(self.ids, starts[first:last], length),
            len(starts) * rank // world,
            len(starts) * (rank + 1) // world,
            micro=self.micro * pieces,
            device=self.device,
            weights=None if shares is None else weights_of,
            losses=losses,
        )

    def blocks(self, tokens: int = 1 << 18) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields many windows at a time, in order: their numbers, and their targets [n, context]."""
        size = max(1, tokens // self.context)
        for first in range(0, len(self), size):
            here = slice(first, min(len(self), first + size))
            yield here, self.read(np.arange(here.start, here.stop))[:, 1:]

    def means(self, values: np.ndarray) -> np.ndarray:
        """Gives each window's mean of a value of documents, weighted by the tokens it has of each."""
        sums = np.concatenate([[0.0], np.cumsum(values * np.diff(self.offsets))])

        def before(at: np.ndarray) -> np.ndarray:
            document = np.clip(np.searchsorted(self.offsets, at, side="right") - 1, 0, len(values) - 1)
            return sums[document] + (at - self.offsets[document]) * values[document]

        return (before(self.starts + self.context) - before(self.starts)) / self.context


def read_rows(ids: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Reads rows of `length` targets, each with the token before: int64 [n, length + 1]; 0 past the end."""
    rows = np.zeros((len(starts), length + 1), dtype=np.int64)
    for row, start in zip(rows, starts.tolist(), strict=True):
        piece = ids[start : start + length]
        row[1 : 1 + len(piece)] = piece
        row[0] = ids[start - 1]  # of the very first token: the last one, an end token
    return rows
