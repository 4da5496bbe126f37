"""A tokenizer.json as llama.cpp's metadata, so that the token ids are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError
from kogata.engine.export._pieces import CONTROL as _CONTROL
from kogata.engine.export._pieces import NORMAL as _NORMAL
from kogata.engine.export._pieces import UNUSED as _UNUSED
from kogata.engine.export._pieces import USER as _USER
from kogata.engine.export._pieces import is_pieces, pieces_metadata

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_SPELT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|"
_MARKS = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    _GPT2: "gpt-2",
    _GPT2 + r"|\s+": "gpt-2",
    **{start + _LETTERS + r"|\p{N}" + _REST: "qwen2" for start in (_CASED, _SPELT)},
    **{start + _LETTERS + r"|\p{N}{1,3}" + _REST: "llama-bpe" for start in (_CASED, _SPELT)},
    **{start + _MARKS: "qwen35" for start in (_CASED, _SPELT)},
}
"""The expression a text is split by → what llama.cpp calls that split."""
_NO_MERGE = "\u2400 \u2400"
"""For a tokenizer without merges: llama.cpp wants a list; these characters are in no byte-level text."""


def pre_of(tokenizer: dict[str, Any]) -> str | None:
    """Names llama.cpp's pre-tokeniser that splits as this tokenizer.json does; None when none does."""
    split = tokenizer.get("pre_tokenizer") or {}
    steps = split.get("pretokenizers", [split]) if split.get("type") == "Sequence" else [split]
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    whole = bool(steps[-1].get("use_regex", True))
    before = steps[:-1]
    if whole and not before:
        return "gpt-2"
    if (
        whole
        and len(before) == 1
        and before[0].get("type") == "Digits"
        and before[0].get("individual_digits")
    ):
        return "smollm"
    if not whole and len(before) == 1 and before[0].get("type") == "Split" and not before[0].get("invert"):
        pattern = before[0].get("pattern", {}).get("Regex")
        if str(before[0].get("behavior")).lower() == "isolated":
            return PATTERNS.get(pattern)
    return None


def gguf_tokenizer(folder: Path, vocab_size: int, config: dict[str, Any]) -> dict[str, Any]:
    """Gives the tokenizer's metadata by key.

    Args:
        folder: holds tokenizer.json and maybe tokenizer_config.json.
        vocab_size: rows of the embedding; ids beyond the vocabulary become unused tokens.
        config: config.json, for the ids of the special tokens.

    Raises:
        DataError: llama.cpp would not give the same ids.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the tokenizer cannot be read", where=str(path), found=str(error), expected="a tokenizer.json"
        ) from None
    model = tokenizer["model"]
    if is_pieces(tokenizer):
        found = pieces_metadata(tokenizer, vocab_size, lambda *words: _unfit(path, *words))
        ids = {text: index for index, text in enumerate(found["tokenizer.ggml.tokens"])}
        return found | _ends(folder, config, ids) | _template(folder)
    if model.get("type") not in ("BPE", None):
        raise _unfit(
            path, f"a model of type {model.get('type')}", "BPE, byte-level or SentencePiece's, Unigram"
        )
    if tokenizer.get("normalizer"):
        kind = tokenizer["normalizer"].get("type")
        # NFC changes no text that is composed already; llama.cpp does nothing for these families either.
        if kind not in ("NFC", "Sequence") or tokenizer["normalizer"].get("normalizers"):
            raise _unfit(path, f"a normaliser {kind}", "no normaliser, or NFC")
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise _unfit(path, f"{name}: {model[name]!r}", f"no {name}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])]
    pre = pre_of(tokenizer)
    if pre is None and merges:
        raise _unfit(
            path, "a split llama.cpp does not know", f"one of {', '.join(sorted(set(PATTERNS.values())))}"
        )
    if model.get("ignore_merges") and pre != "llama-bpe" and merges:
        raise _unfit(path, "ignore_merges", "merges alone decide, or the pre-tokeniser llama-bpe")
    tokens = {index: text for text, index in model["vocab"].items()}
    types = dict.fromkeys(tokens, _NORMAL)
    for added in tokenizer.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added.get("special") else _USER
    if max(tokens) >= vocab_size:
        raise _unfit(path, f"the id {max(tokens)}", f"ids below the embedding's {vocab_size} rows")
    listed = [tokens.get(index, f"[unused {index}]") for index in range(vocab_size)]
    ends = _ends(folder, config, {text: index for index, text in tokens.items()})
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre or "gpt-2",
        "tokenizer.ggml.tokens": listed,
        "tokenizer.ggml.token_type": [types.get(index, _UNUSED) for index in range(vocab_size)],
        "tokenizer.ggml.merges": merges or [_NO_MERGE],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    return found | ends | _template(folder)


def _ends(folder: Path, config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    found = _special_ids(folder, config, ids)
    return {f"tokenizer.ggml.{name}_token_id": index for name, index in found.items()}


def _template(folder: Path) -> dict[str, str]:
    template = _chat_template(folder)
    return {"tokenizer.chat_template": template} if template else {}


def _special_ids(folder: Path, config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    named = _json(folder / "tokenizer_config.json")
    generation = _json(folder / "generation_config.json")
    found: dict[str, int] = {}
    for name, peer in (("bos", "bos_token"), ("eos", "eos_token"), ("padding", "pad_token")):
        value = generation.get(f"{peer}_id", config.get(f"{peer}_id"))
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, int):
            text = named.get(peer)
            value = ids.get(str(text.get("content") if isinstance(text, dict) else text))
        if isinstance(value, int):
            found[name] = value
    if "eos" in found:
        # What llama.cpp puts first where a caller asks for a start; our documents start with the end token.
        found.setdefault("bos", found["eos"])
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def _unfit(path: Path, found: str, expected: str) -> DataError:
    return DataError(
        "llama.cpp would not tokenise as this tokenizer does",
        where=str(path),
        found=found,
        expected=expected,
        remedy="export to hf instead, or train the tokenizer with tokenizer.train",
    )
