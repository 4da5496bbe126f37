"""A fixed general text, read before and after a fine-tuning: what a model forgets shows there.

The passages are bundled, in eleven languages; prose beside them in English and Japanese. Their measure is
bits per byte, in windows of min(context, 256) tokens, each passage alone.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from kogata.engine.examples import read_examples
from kogata.engine.finetune_costs import GENERAL_TOKENS
from kogata.engine.looks import heldout_loss, look_rows
from kogata.engine.rows import Rows

ROWS = 50
"""Training rows whose language is looked at."""
SOME_KANA = 0.02
"""Of the letters, in rows of words alone."""
LOST = 0.03
"""More than this share of bits per byte on top is said to be forgetting."""


def passages(language: str) -> list[str]:
    """Gives the bundled passages of a language; none where there are none."""
    text = (files("kogata") / "data" / "general.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [row["text"] for row in rows if row["language"] == language]


def language_of(examples: Path) -> str:
    """Tells the language of training rows by the first of them; of rows too short or mixed, the likelier."""
    from kogata.engine.text import language_hint

    rows = itertools.islice(read_examples(examples, "train"), ROWS)
    text = "\n".join(text[:2000] for row in rows for text in row.texts())
    found = language_hint(text)
    letters = [char for char in text if char.isalpha()]
    if found != "und" or not letters:
        return found
    if sum("ぁ" <= char <= "ヿ" for char in letters) > SOME_KANA * len(letters):
        return "ja"
    return "en" if sum(map(str.isascii, letters)) > len(letters) / 2 else found


class GeneralText:
    """Passages of a language as a model's tokens.

    Args:
        language: of the passages.
        tokenizer: a `tokenizers.Tokenizer`.
        end_id: stands before each passage.
        window: tokens that a prediction looks back at most.
    """

    def __init__(self, language: str, tokenizer: Any, end_id: int, window: int) -> None:
        from kogata.engine.evaluate import cut

        self.language, self.texts, self.bytes = language, 0, 0
        self.before: float | None = None
        rows: list[tuple[list[int], list[float]]] = []
        tokens = 0
        for text in passages(language):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if rows and tokens + len(ids) > GENERAL_TOKENS:
                break
            self.texts, self.bytes = self.texts + 1, self.bytes + len(text.encode("utf-8"))
            tokens += len(ids)
            for inputs, targets in cut(ids, end_id, window):
                rows.append(([inputs[0], *targets], [0.0, *[1.0] * len(targets)]))
        self.rows = Rows(rows)

    def __bool__(self) -> bool:
        return bool(len(self.rows))

    def measure(self, packed: Any, micro: int) -> float:
        """Computes bits per byte."""
        parts = look_rows(self.rows, 10**9, micro)
        count = math.fsum(self.rows.weight(row) for row in range(len(self.rows)))
        return heldout_loss(packed, self.rows, parts) * count / math.log(2) / self.bytes

    def begin(self, packed: Any, micro: int) -> None:
        """Measures the model as it was before; what a method put before every text is left away."""
        decoder = packed.decoder
        front, decoder.front = decoder.front, None
        try:
            self.before = self.measure(packed, micro)
        finally:
            decoder.front = front

    def begun(self, packed: Any, micro: int) -> GeneralText:
        """Begins, and gives itself."""
        self.begin(packed, micro)
        return self

    def end(self, packed: Any, micro: int) -> dict[str, Any]:
        """Gives what was measured before and what is measured now."""
        assert self.before is not None
        return {
            "language": self.language,
            "passages": self.texts,
            "bytes": self.bytes,
            "bits_per_byte_before": round(self.before, 6),
            "bits_per_byte": round(self.measure(packed, micro), 6),
        }


def said(found: dict[str, Any]) -> Iterable[str]:
    """Says how general text is read now, and what to do where much was forgotten."""
    if not found:
        return
    before, after = found["bits_per_byte_before"], found["bits_per_byte"]
    yield f"general text ({found['language']}): {before:.3f} bits per byte before, {after:.3f} after"
    if after > before * (1 + LOST):
        yield (
            f"{after / before - 1:.0%} of general ability in {found['language']} is lost: take a lower lr, "
            "fewer epochs or a smaller method, or mix general rows in"
        )
