"""What reading and writing a corpus cost; apart from `costs`, so that stages of text need no models' code."""

from __future__ import annotations

SIZE_ON_DISK = 0.37
"""Of a sealed corpus, by bytes of text."""
SEAL_SECONDS = 0.4
SEAL_BYTES_PER_SECOND = 25e6
"""Of a corpus by bytes of text: written as compressed lines, hashed, sealed."""
READ_BYTES_PER_SECOND = 150e6
"""Of a sealed corpus by bytes of text, read document by document."""
WRITE_BYTES_PER_SECOND = 60e6
"""Written as compressed lines, without the seal."""


def seal_seconds(size_bytes: float) -> float:
    """Forecasts writing a corpus of so many bytes of text: compressed, hashed and moved to its place."""
    return SEAL_SECONDS + size_bytes / SEAL_BYTES_PER_SECOND
