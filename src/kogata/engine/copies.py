"""Copies: a name for a text that does not depend on its Unicode form or its white space."""

from __future__ import annotations

import unicodedata


def fingerprint(text: str) -> bytes:
    """Hashes a text (128 bits) up to NFC and white space."""
    import xxhash

    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "surrogatepass"))
