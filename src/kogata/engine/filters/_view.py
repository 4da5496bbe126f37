"""A document as the rules look at it: lines, words and n-grams computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kogata.engine.text import spaced


class View:
    """One text with what rules share."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def spaced(self) -> bool:
        """Says whether words are set apart by spaces."""
        return spaced(self.text)

    @cached_property
    def words(self) -> list[str]:
        """Gives what stands between white space."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Gives the lines that hold something."""
        return [line for line in (line.strip() for line in self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Gives what stands between blank lines."""
        return [part for part in (part.strip() for part in self.text.split("\n\n")) if part]

    @cached_property
    def units(self) -> np.ndarray:
        """Gives numbers that stand for the words, or for the characters where words are not set apart."""
        if self.spaced:
            # Python's own hash differs between processes; only whether two are equal counts here.
            return np.fromiter(map(hash, self.words), dtype=np.int64).view(np.uint64)
        text = "".join(self.words)
        return np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)

    def ngrams(self, length: int) -> np.ndarray:
        """Gives a hash for each run of `length` units."""
        units = self.units
        count = len(units) - length + 1
        if count <= 0:
            return np.zeros(0, dtype=np.uint64)
        total = np.zeros(count, dtype=np.uint64)
        with np.errstate(over="ignore"):
            for place in range(length):
                total = (total ^ units[place : place + count]) * np.uint64(0x9E3779B97F4A7C15)
                total ^= total >> np.uint64(29)
        return total
