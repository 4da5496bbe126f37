"""Texts cut into a tokenizer's pieces, with their places; where they are long, into windows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kogata.engine.encoders import Row as Ids
from kogata.engine.tag._task import Place, Row, Scheme
from kogata.engine.tag_rows import within_word

MARGIN = 8
"""This part of a window, at each end, sees too little to count: neighbours share twice that."""
IGNORED = -100
"""Target of a piece that is not learned: one that stands for no character."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text's pieces: ids, and starts and ends in characters, white space left out."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Window:
    """What is read at once of a text: `count` of its pieces from `first` on count, at `skip` of the ids."""

    ids: Ids
    first: int
    skip: int
    count: int


class Cutter:
    """Cuts texts.

    Args:
        tokenizer: of the `tokenizers` library.
        context: tokens of a window, special ones included.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_truncation()
        found = tokenizer.encode("a")
        special = [at for at, is_special in enumerate(found.special_tokens_mask) if is_special]
        plain = [at for at in range(len(found.ids)) if at not in special]
        split = plain[0] if plain else len(found.ids)
        self.before = [found.ids[at] for at in special if at < split]
        self.after = [found.ids[at] for at in special if at > split]
        self.room = context - len(self.before) - len(self.after)
        assert self.room > 0, "a context that holds no piece"
        self._known: dict[str, Pieces] = {}

    def pieces(self, texts: Sequence[str]) -> list[Pieces]:
        """Gives the pieces of texts; each text is tokenised once."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        for text, found in zip(new, self.tokenizer.encode_batch(new, add_special_tokens=False), strict=True):
            places = [_bare(text, start, end) for start, end in found.offsets]
            starts, ends = (np.array([place[side] for place in places], dtype=np.int64) for side in (0, 1))
            self._known[text] = Pieces(np.array(found.ids, dtype=np.int64), starts, ends)
        return [self._known[text] for text in texts]

    def windows(self, pieces: Pieces) -> Iterator[Window]:
        """Parts pieces into windows in which every piece counts once; of a short text there is one."""
        n, room = len(pieces), self.room
        margin = room // MARGIN if n > room else 0
        start = 0
        while start < n:
            stop = min(n, start + room)
            first = start + margin if start else 0
            last = n if stop == n else stop - margin
            ids = np.array([*self.before, *pieces.ids[start:stop], *self.after], dtype=np.int64)
            yield Window(Ids(ids), first, len(self.before) + first - start, last - first)
            if stop == n:
                return
            start = stop - 2 * margin


def _bare(text: str, start: int, end: int) -> Place:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def targets_of(pieces: Pieces, row: Row, scheme: Scheme) -> np.ndarray:
    """Gives the class of each piece, int64; every piece of a span carries its label, the first one B-."""
    places = list(zip(pieces.starts.tolist(), pieces.ends.tolist(), strict=True))
    there = [at for at, (start, end) in enumerate(places) if start < end]
    found = np.full(len(pieces), IGNORED, dtype=np.int64)
    classes = scheme.targets([places[at] for at in there], row.spans)
    found[there] = np.where(classes < 0, IGNORED, classes)
    return found


def units_of(pieces: Pieces, row: Row) -> tuple[list[Place], np.ndarray]:
    """Gives what is tagged as a whole, and the piece that each one is judged by, its first; −1 without any.

    Of a row of tokens these are the tokens. Else a piece that goes on within a word belongs to the one
    before it; of scripts without spaces every piece stands for itself.
    """
    there = np.flatnonzero(pieces.starts < pieces.ends)
    starts, ends = pieces.starts[there], pieces.ends[there]
    if row.tokens is not None:
        first: list[int] = []
        for start, end in row.tokens:
            at = int(np.searchsorted(ends, start, side="right"))
            first.append(int(there[at]) if at < len(there) and starts[at] < end else -1)
        return list(row.tokens), np.array(first, dtype=np.int64)
    places: list[Place] = []
    first = []
    for at, start, end in zip(there.tolist(), starts.tolist(), ends.tolist(), strict=True):
        last = places[-1][1] if places else -1
        if start < last or (start == last and within_word(row.text, start)):
            places[-1] = (places[-1][0], max(last, end))
            continue
        places.append((start, end))
        first.append(at)
    return places, np.array(first, dtype=np.int64)
