"""Byte-level byte-pair encoding: 256 bytes, then the pairs that occur most often."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kogata.core.amounts import format_bytes, format_seconds
from kogata.core.stage import Facts
from kogata.engine.text import UNSPACED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACED_SAMPLE, UNSPACED_SAMPLE = 5_000_000, 2_500_000
"""Bytes seen. 30 MB of novels gave 3.668 bytes per token, 5 MB 3.665; 12 MB of stories 4.36, 2.5 MB 4.32."""
SPACED_SECONDS_PER_MB, UNSPACED_SECONDS_PER_MB = 0.2, 1.5
"""On two cores; without spaces every run of letters is new, so counting and merging take longer."""
SMALL, MIDDLE, LARGE = 2048, 4096, 8192
LONG_BYTES, LONG_SECONDS = 16e6, 240.0
"""From here on the largest pays: 30 MB of novels, 3 x 128, 288 s: 1.689 bits per byte, with 4,096 1.698;
at 96 s both are alike (LOG.md)."""

# Bytes per token on held-out text, measured with the qwen2 pre-tokeniser (novels; Aozora stories; 5 MB seen).
_BYTES_PER_TOKEN = {"en": (3.25, 0.375), "ja": (3.70, 0.65)}
"""Language → at 2,048 entries, and what each doubling adds."""


def train(texts: Iterable[str], size: int, pre: str) -> Tokenizer:
    """Learns a vocabulary of at most `size` entries, the end token among them."""
    from tokenizers import pre_tokenizers, trainers

    from kogata.engine.tokenizer import END, blank

    tokenizer = blank(pre)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def sample_bytes(facts: Facts) -> int | None:
    """Says how much text is seen at most."""
    return UNSPACED_SAMPLE if facts.get("language_hint") in UNSPACED else SPACED_SAMPLE


def train_seconds(facts: Facts, size: int) -> float:
    """Forecasts the time to learn from so many bytes."""
    unspaced = facts.get("language_hint") in UNSPACED
    return size / 1e6 * (UNSPACED_SECONDS_PER_MB if unspaced else SPACED_SECONDS_PER_MB)


def train_bytes(facts: Facts, size: int) -> int:
    """Forecasts the memory to learn from so many bytes: every distinct run of letters is held."""
    return size * (95 if facts.get("language_hint") in UNSPACED else 6)


def auto_size(facts: Facts, budget_seconds: float | None) -> tuple[int | None, str]:
    """Chooses a size by how much text there is and how long it can be seen."""
    size = facts["splits"].get("train", {}).get("bytes", 0)
    seen = f"{format_bytes(size)} of training text"
    if size < 2e6:
        return SMALL, f"{seen}: a small vocabulary, so that every entry is seen often"
    long = budget_seconds is None or budget_seconds >= LONG_SECONDS
    if size >= LONG_BYTES and long:
        budget = format_seconds(budget_seconds) if budget_seconds else "no time budget"
        return LARGE, f"{seen}, {budget}: shorter sequences pay for the larger head"
    return MIDDLE, f"{seen}: a larger vocabulary would cost more per step than it saves in tokens"


def expected(facts: Facts, size: int | None) -> tuple[int, float]:
    """Gives the vocabulary and the bytes per token to plan with."""
    base, more = _BYTES_PER_TOKEN.get(facts.get("language_hint", "en"), _BYTES_PER_TOKEN["en"])
    size = size or MIDDLE
    return size, max(1.0, base + more * math.log2(size / 2048))
