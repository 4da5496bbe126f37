"""Does the tokenizer fit the text: tokens per character, unknown tokens, characters cut into bytes."""

from __future__ import annotations

import json
from typing import Any

from kogata.engine.check._common import SHOWN, Examined, Finding, percent

CHEAP, NEEDS = False, "tokenizer"

MANY = 1.5
"""Tokens per character beyond which the tokenizer hardly knows the script."""
MUCH = 0.01
"""Share of unknown tokens beyond which the model cannot read the text."""


def check(examined: Examined) -> list[Finding]:
    """Encodes every text, without the template around it."""
    tokenizer = examined.tokenizer
    unknown_id = _unknown_id(tokenizer)
    tokens = characters = unknown = split = 0
    rows = []
    texts = [(example, examined.read_of(example)) for _, example in examined.examples]
    for (example, text), encoded in zip(
        texts, tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False), strict=True
    ):
        tokens += len(encoded.ids)
        characters += len(text)
        # A character of several tokens: neighbours with the same place in the text.
        places = encoded.offsets
        split += sum(a == b and a[1] - a[0] == 1 for a, b in zip(places, places[1:], strict=False))
        pairs = zip(encoded.ids, places, strict=True)
        lost = [text[a:b] for number, (a, b) in pairs if number == unknown_id]
        unknown += len(lost)
        if lost and len(rows) < SHOWN:
            rows.append({"source": example.source, "found": "".join(dict.fromkeys(lost))[:40]})
    if not tokens:
        return []
    each = tokens / max(1, characters)
    found = [
        Finding(
            check="tokens",
            name="tokens per character",
            level="warning" if each > MANY else "note",
            what=f"{each:.2f} tokens per character; {percent(split, tokens)} of the tokens are parts of a "
            "character",
            remedy="a model made for this language takes fewer tokens, so less time" if each > MANY else "",
            numbers={
                "tokens": tokens,
                "characters": characters,
                "tokens_per_character": each,
                "parts": split,
            },
        )
    ]
    share = unknown / tokens
    if unknown_id is not None or unknown:
        found.append(
            Finding(
                check="tokens",
                name="unknown tokens",
                level="problem" if share > MUCH else "warning" if unknown else "note",
                what=f"{unknown:,} of {tokens:,} tokens ({percent(unknown, tokens)}) are unknown to the "
                "tokenizer",
                remedy="the model cannot read these: choose one whose tokenizer can" if unknown else "",
                count=unknown,
                rows=rows,
                numbers={"share": share},
            )
        )
    return found


def _unknown_id(tokenizer: Any) -> int | None:
    """Finds the id that stands for what the vocabulary has not."""
    model = json.loads(tokenizer.to_str())["model"]
    named = model.get("unk_token")
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    return tokenizer.token_to_id(named) if named else None
