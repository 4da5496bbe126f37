"""What writing a corpus costs; apart from `costs`, so that stages of text do not depend on models' code."""

from __future__ import annotations

SIZE_ON_DISK = 0.37
"""Of a sealed corpus, by bytes of text."""
SEAL_SECONDS = 0.4
SEAL_BYTES_PER_SECOND = 25e6
"""Of a corpus by bytes of text: written as compressed lines, hashed, sealed."""


def seal_seconds(size_bytes: float) -> float:
    """Forecasts writing a corpus of so many bytes of text: compressed, hashed and moved to its place."""
    return SEAL_SECONDS + size_bytes / SEAL_BYTES_PER_SECOND
