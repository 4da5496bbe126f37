"""Does the tokenizer fit the text: tokens per character, unknown tokens, characters cut into bytes."""

from __future__ import annotations

from kogata.engine.check._common import SHOWN, Examined, Finding, percent

CHEAP, NEEDS_MODEL = False, True

MANY = 1.5
"""Tokens per character beyond which the tokenizer hardly knows the script."""


def check(examined: Examined) -> list[Finding]:
    """Encodes every text, without the template around it."""
    assert examined.renderer is not None
    tokenizer = examined.renderer.tokenizer
    unknown_id = _unknown_id(tokenizer)
    tokens = characters = unknown = split = 0
    rows = []
    texts = [(example, "\n".join(example.texts())) for _, example in examined.examples]
    for (example, text), encoded in zip(
        texts, tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False), strict=True
    ):
        tokens += len(encoded.ids)
        characters += len(text)
        # A character of several tokens: neighbours with the same place in the text.
        split += sum(a == b and a[1] - a[0] == 1 for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False))
        lost = [text[a:b] for number, (a, b) in zip(encoded.ids, encoded.offsets, strict=True) if number == unknown_id]
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
            numbers={"tokens": tokens, "characters": characters, "tokens_per_character": each, "parts": split},
        )
    ]
    share = unknown / tokens
    if unknown_id is not None or unknown:
        found.append(
            Finding(
                check="tokens",
                name="unknown tokens",
                level="problem" if unknown else "note",
                what=f"{unknown:,} of {tokens:,} tokens ({percent(unknown, tokens)}) are unknown to the tokenizer",
                remedy="the model cannot read these characters: choose one whose tokenizer can" if unknown else "",
                count=unknown,
                rows=rows,
                numbers={"share": share},
            )
        )
    return found


def _unknown_id(tokenizer: object) -> int | None:
    """Finds the id that stands for what the vocabulary has not."""
    import json

    model = json.loads(tokenizer.to_str())["model"]  # type: ignore[attr-defined]
    named = model.get("unk_token")
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    return tokenizer.token_to_id(named) if named else None  # type: ignore[attr-defined]
