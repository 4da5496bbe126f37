"""Takes for hard what compresses badly: the size of a window's text after zlib, by its size before.

Where the tokenizer is byte-level the text's own bytes are compressed, else the token ids. In a corpus of
several languages the script counts too: Japanese takes three bytes a character and compresses well.

Pays when: nothing is known of the text; it finds lists, boilerplate and repetition easy, and noise hard.
Hurts when: what compresses well is boilerplate one would rather not see.
Cost: about 1 s for 4 million tokens on one core.
Source: compression ratio as difficulty: Zhang et al. 2025 (arXiv 2506.11300).
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.supply import FixedWindows, Supply

LEVEL = 6


class Settings(VariantSettings):
    """`compressibility` has none."""


def seconds(tokens: float) -> float:
    """Forecasts the time of measuring, on one core."""
    return 0.1 + tokens / 4e6


def measure(supply: Supply, windows: FixedWindows, settings: Settings) -> np.ndarray:
    """Gives the compressed size by the plain size of every window."""
    import zlib

    import numpy as np

    letters = _bytes_of_ids(supply)
    found = np.empty(len(windows))
    for here, rows in windows.blocks():
        for number, row in enumerate(rows, here.start):
            plain = b"".join([letters[i] for i in row.tolist()]) if letters else row.astype("<u4").tobytes()
            found[number] = len(zlib.compress(plain, LEVEL)) / max(1, len(plain))
    return found


def _bytes_of_ids(supply: Supply) -> list[bytes] | None:
    """Gives the bytes each id stands for; None where the tokenizer is not byte-level."""
    from kogata.engine.tokenizer import byte_letters

    described = _described(supply)
    vocabulary: dict[str, int] = described.get("model", {}).get("vocab") or {}
    place = {letter: byte for byte, letter in enumerate(byte_letters())}
    found = [b""] * int(supply.facts["vocab_size"])
    for token, number in vocabulary.items():
        if number < len(found):
            if not all(letter in place for letter in token):
                if token.startswith("<"):
                    continue  # a special token of the vocabulary itself
                return None
            found[number] = bytes(place[letter] for letter in token)
    return found if vocabulary else None


def _described(supply: Supply) -> dict[str, Any]:
    import json

    file = supply.folder / "tokenizer" / "tokenizer.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = (found.get("model") or {}).get("vocab")
    return found if isinstance(vocabulary, dict) else {}
