"""A SentencePiece tokenizer's pieces and scores as llama.cpp's metadata, so that the token ids are the same.

llama.cpp has two of these: `t5` takes the likeliest cut of a text (Unigram), `llama` joins neighbours, those
of the highest score first (SentencePiece's BPE, whose merges give the scores). `t5` knows no bytes: there a
byte that is a character of its own, such as a line's end, stands as that character; a rarer character of
several bytes is read as unknown.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

Refuse = Callable[[str, str], Exception]
"""Makes the error of (found, expected)."""


def is_pieces(tokenizer: dict[str, Any]) -> bool:
    """Says whether a tokenizer.json is one of SentencePiece's kinds."""
    model = tokenizer["model"]
    return model.get("type") == "Unigram" or bool(model.get("byte_fallback"))


def pieces_metadata(tokenizer: dict[str, Any], vocab_size: int, refuse: Refuse) -> dict[str, Any]:
    """Gives the vocabulary's metadata by key, special ids and template left out.

    Args:
        tokenizer: a tokenizer.json.
        vocab_size: rows of the embedding; ids beyond the vocabulary become unused tokens.
        refuse: makes the error to raise where llama.cpp would not give the same ids.
    """
    model = tokenizer["model"]
    unigram = model.get("type") == "Unigram"
    ways = _normal(tokenizer, refuse)
    if unigram:
        pairs = [(str(text), float(score)) for text, score in model["vocab"]]
        unknown = model.get("unk_id")
    else:
        ranks = _ranks(model)
        listed = sorted(model["vocab"].items(), key=lambda item: item[1])
        if [index for _, index in listed] != list(range(len(listed))):
            raise refuse("ids with gaps", "ids from 0 on")
        pairs = [(text, float(-ranks.get(text, 0))) for text, _ in listed]
        unknown = model["vocab"].get(model.get("unk_token"))
    tokens = [text for text, _ in pairs]
    scores = [score for _, score in pairs]
    types = [BYTE if _BYTE.fullmatch(text) else NORMAL for text in tokens]
    if unigram and model.get("byte_fallback"):
        known, lowest = set(tokens), min(scores)
        for index, text in enumerate(tokens):
            char = chr(int(text[3:5], 16)) if types[index] == BYTE else ""
            if "\0" < char < "\x80" and char not in known:
                tokens[index], scores[index], types[index] = char, lowest, NORMAL
    if unknown is not None:
        types[unknown] = UNKNOWN
    for added in tokenizer.get("added_tokens", []):
        index = int(added["id"])
        while index >= len(tokens):
            tokens.append(f"[unused {len(tokens)}]")
            scores.append(0.0)
            types.append(UNUSED)
        tokens[index] = added["content"]
        if types[index] != UNKNOWN:
            types[index] = CONTROL if added.get("special") else USER
    if len(tokens) > vocab_size:
        raise refuse(f"the id {len(tokens) - 1}", f"ids below the embedding's {vocab_size} rows")
    for index in range(len(tokens), vocab_size):
        tokens.append(f"[unused {index}]")
        scores.append(0.0)
        types.append(UNUSED)
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "t5" if unigram else "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": ways["prefix"],
    }
    if unigram:
        found["tokenizer.ggml.remove_extra_whitespaces"] = ways["single_spaces"]
        if ways["charsmap"]:
            found["tokenizer.ggml.precompiled_charsmap"] = ways["charsmap"]
    elif ways["single_spaces"] or ways["charsmap"]:
        raise refuse("a normaliser", "none beside spaces written as ▁")
    if unknown is not None:
        found["tokenizer.ggml.unknown_token_id"] = int(unknown)
    return found


def _ranks(model: dict[str, Any]) -> dict[str, int]:
    """Gives each piece the place of the first merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model.get("merges", []), start=1):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    return ranks


def _normal(tokenizer: dict[str, Any], refuse: Refuse) -> dict[str, Any]:
    """Tells what becomes of a text before it is cut: a space in front, single spaces, a map of characters."""
    found: dict[str, Any] = {"prefix": False, "single_spaces": False, "charsmap": b""}
    escaped = False
    for step in _steps(tokenizer.get("normalizer"), "normalizers"):
        kind, pattern = step.get("type"), step.get("pattern") or {}
        if kind == "Prepend" and step.get("prepend") == SPACE:
            found["prefix"] = True
        elif kind == "Replace" and pattern.get("String") == " " and step.get("content") == SPACE:
            escaped = True
        elif kind == "Replace" and pattern.get("Regex") == " {2,}" and step.get("content") in (" ", SPACE):
            found["single_spaces"] = True
        elif kind == "Precompiled":
            found["charsmap"] = base64.b64decode(step.get("precompiled_charsmap") or "")
        elif kind == "Strip" and found["single_spaces"]:
            pass
        else:
            raise refuse(f"a normaliser {kind}", "what SentencePiece itself does: spaces, and its own map")
    for step in _steps(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        kind = step.get("type")
        if kind == "Metaspace" and step.get("replacement", SPACE) == SPACE:
            escaped = True
            scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space") else "never")
            found["prefix"] = found["prefix"] or scheme in ("always", "first")
        elif kind == "Split" and (step.get("pattern") or {}).get("String") == " ":
            pass  # No space is left after the normaliser.
        else:
            raise refuse(f"a split {kind}", "Metaspace, or none")
    if not escaped:
        raise refuse("spaces that stay spaces", f"spaces written as {SPACE}")
    return found


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if not part:
        return []
    return list(part[name]) if part.get("type") == "Sequence" else [part]
