"""A document as the rules look at it: lines, words and n-grams computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from kogata.engine.text import language_hint, spaced

if TYPE_CHECKING:
    import numpy as np

HEARD = 2_000
"""Characters the language is told from where nobody said it."""


class Repeats(NamedTuple):
    """Runs of one length that occur more than once."""

    starts: np.ndarray
    """Where each begins, in units, sorted by run and then by place."""
    groups: np.ndarray
    """Which distinct run each is."""
    first: np.ndarray
    """Whether it is the run's first occurrence."""


class View:
    """One text with what rules share.

    Args:
        text: the document's text.
        meta: what is known of it; `language` is believed.
    """

    def __init__(self, text: str, meta: dict[str, Any] | None = None) -> None:
        self.text, self.meta = text, meta or {}
        self._repeats: dict[int, Repeats] = {}

    @cached_property
    def language(self) -> str:
        """Gives the language: as the document's meta says, else guessed from script and commonest words."""
        said = self.meta.get("language")
        return said if isinstance(said, str) else language_hint(self.text[:HEARD])

    @cached_property
    def spaced(self) -> bool:
        """Says whether words are set apart by spaces."""
        return self.text.isascii() or spaced(self.text)

    @cached_property
    def words(self) -> list[str]:
        """Gives what stands between white space."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Gives the lines that hold something."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Gives what stands between blank lines."""
        return [part for part in map(str.strip, self.text.split("\n\n")) if part]

    @cached_property
    def visible(self) -> int:
        """Counts the characters that are no white space."""
        return sum(map(len, self.words))

    @cached_property
    def units(self) -> np.ndarray:
        """Gives numbers that stand for the words, or for the characters where words are not set apart.

        There what is written in ASCII is one unit from space to space: a Latin name in a Japanese text is a
        word, and its letters are none.
        """
        import numpy as np

        if self.spaced:
            # Python's own hash differs between processes; only whether two are equal counts here.
            return np.fromiter(map(hash, self.words), dtype=np.int64).view(np.uint64)
        return self._unspaced[0]

    @cached_property
    def unit_ends(self) -> np.ndarray:
        """Gives the characters before each unit and, last, of all: units a to b have `ends[b] - ends[a]`."""
        import numpy as np

        if not self.spaced:
            lengths = self._unspaced[1]
        else:
            lengths = np.fromiter(map(len, self.words), dtype=np.int64, count=len(self.words))
        ends = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=ends[1:])
        return ends

    @cached_property
    def _unspaced(self) -> tuple[np.ndarray, np.ndarray]:
        """Gives the units of a text without spaces between words, and their lengths."""
        import numpy as np

        text = " ".join(self.words)
        codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
        latin = (codes > 32) & (codes < 127)
        begins = np.ones(len(codes), dtype=bool)
        begins[1:] = ~(latin[1:] & latin[:-1])
        starts = np.flatnonzero(begins)
        if not len(starts):
            return codes, np.zeros(0, dtype=np.int64)
        lengths = np.diff(np.append(starts, len(codes)))
        places = np.arange(len(codes)) - np.repeat(starts, lengths)
        powers = np.cumprod(np.full(int(lengths.max()), 0x9E3779B97F4A7C15, dtype=np.uint64))
        units = np.add.reduceat(codes * powers[places], starts)
        seen = codes[starts] != 32
        return units[seen], lengths[seen]

    def repeats(self, length: int) -> Repeats:
        """Finds the runs of `length` units that occur more than once.

        A run can repeat only where its shorter beginnings do, so after the first length asked for few places
        are left to look at: ask for short ones first.
        """
        import numpy as np

        if length in self._repeats:
            return self._repeats[length]
        units = self.units
        count = len(units) - length + 1
        below = max((known for known in self._repeats if known < length), default=None)
        if below is None:
            places = np.arange(max(0, count))
            parts = [units[place : place + count] for place in range(length)] if count > 0 else []
        else:
            starts = self._repeats[below].starts
            places = np.sort(starts[starts < count])
            parts = [units[places + place] for place in range(length)] if len(places) else []
        total = np.zeros(len(places), dtype=np.uint64)
        for part in parts:
            total = (total ^ part) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
        order = np.argsort(total, kind="stable")
        total = total[order]
        new = np.ones(len(total), dtype=bool)
        new[1:] = total[1:] != total[:-1]
        groups = np.cumsum(new) - 1
        again = np.bincount(groups, minlength=1)[groups] > 1 if len(groups) else new
        found = Repeats(places[order][again], groups[again], new[again])
        self._repeats[length] = found
        return found
