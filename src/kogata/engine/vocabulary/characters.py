"""One token for every character that occurs; byte-level still, so loaders of GPT-2 vocabularies read it.

A character of several bytes is built by merges of its own bytes and of nothing else, so no token ever holds
two characters. Rare characters beyond the size stay bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kogata.core.errors import DataError
from kogata.core.stage import Facts

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def train(texts: Iterable[str], size: int | None, pre: str) -> Tokenizer:
    """Collects the characters, the commonest first when `size` cannot hold all."""
    from tokenizers import models

    from kogata.engine.tokenizer import END, blank, byte_letters

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    letters = byte_letters()
    singles = sorted({ord(char) for char in counts if char.isascii()})
    if any(not char.isascii() for char in counts):
        # Every byte beyond ASCII, so that a character never seen in training can still be written.
        singles += range(0x80, 0x100)
    vocabulary: dict[str, int] = {END: 0}
    for byte in singles:
        vocabulary[letters[byte]] = len(vocabulary)
    if size is not None and len(vocabulary) > size:
        raise DataError(
            "the vocabulary is too small for single characters",
            where="vocab_size of tokenizer.train",
            found=str(size),
            expected=f"at least {len(vocabulary)}, or auto",
        )
    merges: list[tuple[str, str]] = []
    for char, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if char.isascii():
            continue
        parts = [letters[byte] for byte in char.encode("utf-8")]
        prefixes = ["".join(parts[:end]) for end in range(2, len(parts) + 1)]
        new = [prefix for prefix in prefixes if prefix not in vocabulary]
        if size is not None and len(vocabulary) + len(new) > size:
            break
        for end in range(1, len(parts)):
            if "".join(parts[: end + 1]) in new:
                merges.append(("".join(parts[:end]), parts[end]))
        for prefix in new:
            vocabulary[prefix] = len(vocabulary)
    tokenizer = blank(pre)
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens([END])
    return tokenizer


def sample_bytes(facts: Facts) -> int | None:
    """Has all of the training text looked at: a character left out could not be written."""
    return None


def train_seconds(facts: Facts, size: int) -> float:
    """Forecasts the time to count characters, measured on one core."""
    return 0.06 * size / 1e6


def train_bytes(facts: Facts, size: int) -> int:
    """Forecasts the memory: next to none."""
    return 5 * 2**20


def auto_size(facts: Facts, budget_seconds: float | None) -> tuple[int | None, str]:
    """Leaves the size open: as many as there are characters."""
    return None, "as many as there are characters in the training text"


def expected(facts: Facts, size: int | None) -> tuple[int, float]:
    """Gives the vocabulary and the bytes per token to plan with."""
    train = facts["splits"].get("train", {})
    each = train.get("bytes", 1) / max(1, train.get("characters", 1))
    guess = 80 if each < 1.005 else 400 if each < 1.5 else 4000
    return size or guess, max(1.0, each * 0.99)
