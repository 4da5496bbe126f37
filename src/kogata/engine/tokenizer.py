"""The tokenizer: byte-level, its pre-tokeniser known to llama.cpp; making it, and encoding much text fast."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from kogata.core.artifact import Document
from kogata.core.errors import ArtifactError, DataError
from kogata.engine.splits import content_hash, cut_into_parts
from kogata.engine.tokens import tokenizer_digest

END = "<|endoftext|>"
PIECE = 16_000
"""Characters of the pieces a tokenizer is trained on."""
SHORT = 64
"""A segment up to this long is remembered with its ids; words recur, sentences do not."""
REMEMBERED = 400_000
"""Segments remembered at most."""
CHECKED = 20_000
"""Characters on which cutting into segments is compared with encoding whole."""

# Where both sides surely are pre-tokens of their own, in every pre-tokeniser below and those like them:
# before one space between a visible ASCII character and a letter (the space goes with what follows) …
_SPACE = re.compile(r" (?<=[!-~] )(?=[A-Za-z])")
# … and after one line break between visible characters, the right one perhaps indented as in Japanese.
_LINE = re.compile(r"(?<=[^\s]\n)(?=\u3000?[^\s])")

PRE_TOKENIZERS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""Name in llama.cpp (`tokenizer.ggml.pre`) → how text is cut into pre-tokens."""


def blank(pre: str) -> Tokenizer:
    """Builds a byte-level tokenizer without a vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZERS[pre]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_letters() -> list[str]:
    """Gives the letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(plain))
    return [letters[byte] for byte in range(256)]


def sample(documents: Iterable[Document], total_bytes: int, limit_bytes: int) -> Iterator[str]:
    """Yields pieces of documents, about `limit_bytes` in all, chosen by their content."""
    share = 1.0 if total_bytes <= limit_bytes else limit_bytes / total_bytes
    for document in documents:
        for piece in cut_into_parts(document.text, PIECE):
            if share >= 1 or content_hash(piece) / 2**64 < share:
                yield piece


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Writes the two files that transformers and the exporters load."""
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "bos_token": None,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(END)): {
                "content": END,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
        },
    }
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


class TextTokenizer:
    """A tokenizer from a folder: ids of text, text of ids. Special tokens in text are text, never tokens."""

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json"
        try:
            self.raw = Tokenizer.from_file(str(file))
        except Exception as error:
            raise ArtifactError(
                "no tokenizer can be loaded", where=str(file), found=str(error), expected="a tokenizer.json"
            ) from None
        self.folder = folder
        self.raw.no_truncation()
        self.raw.no_padding()
        self.raw.encode_special_tokens = True
        self._cache: dict[str, list[int]] = {}
        self._checked: bool | None = None
        self._described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))

    @property
    def vocab_size(self) -> int:
        """Gives the number of ids, special ones included."""
        return self.raw.get_vocab_size(with_added_tokens=True)

    @cached_property
    def digest(self) -> str:
        """Names the tokenizer by its content."""
        return tokenizer_digest(self.folder)

    @cached_property
    def end_id(self) -> int:
        """Gives the id of the end token, as tokenizer_config.json names it."""
        config = json.loads((self.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        named = config.get("eos_token")
        text = named.get("content") if isinstance(named, dict) else named
        found = self.raw.token_to_id(text) if text else None
        if found is None:
            raise ArtifactError(
                "the tokenizer names no end token",
                where=str(self.folder / "tokenizer_config.json"),
                found=f"eos_token: {text!r}",
                expected="a token of its vocabulary",
            )
        return found

    def encode(self, text: str) -> list[int]:
        """Gives the ids of one text, no special tokens added.

        Raises:
            DataError: a character is not in the vocabulary.
        """
        ids = self.raw.encode(text, add_special_tokens=False).ids
        self._nothing_lost(text, np.asarray(ids, dtype=np.int64), "the text")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Gives the text of ids; special tokens give nothing."""
        return self.raw.decode(list(ids), skip_special_tokens=True)

    def encode_documents(self, documents: Sequence[Document]) -> list[np.ndarray]:
        """Gives the ids of many documents, equal to encoding each whole.

        Raises:
            DataError: a character is not in the vocabulary; names the document.
        """
        if not self._cuttable or not self._cuts_well(documents):
            texts = [document.text for document in documents]
            encoded = self.raw.encode_batch_fast(texts, add_special_tokens=False)
            found = [np.array(item.ids, dtype=np.uint32) for item in encoded]
        else:
            found = self._by_segments([document.text for document in documents])
        for document, ids in zip(documents, found, strict=True):
            self._nothing_lost(document.text, ids, f"document {document.id} ({document.split})")
        return found

    def _cuts_well(self, documents: Sequence[Document]) -> bool:
        """Compares, once, cutting with encoding whole: no unforeseen pre-tokeniser may change the ids."""
        if self._checked is None and documents:
            self._forget_words()
            text = max(documents, key=lambda document: len(document.text)).text[:CHECKED]
            whole = self.raw.encode(text, add_special_tokens=False).ids
            self._checked = self._by_segments([text])[0].tolist() == whole
        return self._checked is not False

    def _forget_words(self) -> None:
        """Turns off the library's own memory of words: `_cache` has them.

        Each thread holds one, and none is freed with the tokenizer. Without spaces every word is new:
        2.4 MB of Japanese took 0.67 s and left 75 MiB with it, 0.5 s and 5 MiB without; English took as
        long either way.
        """
        resize = getattr(self.raw.model, "_resize_cache", None)
        if resize is not None:
            resize(0)

    def _by_segments(self, texts: Sequence[str]) -> list[np.ndarray]:
        cut = [_SPACE.split(text) for text in texts]
        cache = self._cache
        if len(cache) > REMEMBERED:
            cache.clear()
        new = list(set().union(*(segments[1:] for segments in cut)) - cache.keys())
        starts = self._by_lines([segments[0] for segments in cut])
        cache.update(zip(new, self._by_lines([f" {segment}" for segment in new]), strict=True))
        found = [
            np.fromiter(chain(start, chain.from_iterable(map(cache.__getitem__, segments[1:]))), np.uint32)
            for start, segments in zip(starts, cut, strict=True)
        ]
        for segment in new:
            if len(segment) > SHORT:
                del cache[segment]
        return found

    def _by_lines(self, segments: Sequence[str]) -> list[list[int]]:
        """Gives the ids of segments; long ones are encoded line by line, so that no core waits for one."""
        cut = [_LINE.split(segment) if len(segment) > SHORT else [segment] for segment in segments]
        encoded = iter(self.raw.encode_batch_fast(list(chain.from_iterable(cut)), add_special_tokens=False))
        return [list(chain.from_iterable(next(encoded).ids for _ in lines)) for lines in cut]

    @cached_property
    def _cuttable(self) -> bool:
        """Says whether text may be cut at spaces and lines: with pre-tokenisers of known make."""
        described = self._described
        normalizer = (described.get("normalizer") or {}).get("type")
        if normalizer not in (None, "NFC"):
            return False
        if any(" " in token["content"] and not token["special"] for token in described["added_tokens"]):
            return False
        return _known_pieces(described.get("pre_tokenizer"))

    @cached_property
    def _lengths(self) -> np.ndarray | None:
        """Gives the bytes of every id; None where no byte can get lost."""
        vocabulary = self.raw.get_vocab(with_added_tokens=False)
        letters = byte_letters()
        if self._described["model"].get("unk_token") or self._described["model"]["type"] != "BPE":
            return None
        if not _has_byte_level(self._described.get("pre_tokenizer")):
            return None
        if all(letter in vocabulary for letter in letters):
            return None
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        for token, number in vocabulary.items():
            lengths[number] = len(token)
        return lengths

    def _nothing_lost(self, text: str, ids: np.ndarray, where: str) -> None:
        lengths = self._lengths
        if lengths is None or int(lengths[ids].sum()) == len(text.encode("utf-8")):
            return
        for char in dict.fromkeys(text):
            got = self.raw.encode(char, add_special_tokens=False).ids
            if int(lengths[got].sum()) != len(char.encode("utf-8")):
                raise DataError(
                    "a character is not in the vocabulary",
                    where=where,
                    found=f"{char!r} (U+{ord(char):04X})",
                    expected="characters that occur in the training text",
                    remedy="train the tokenizer with `method: bpe`, which can write any text",
                )


def _parts(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    if described is None:
        return []
    if described.get("type") == "Sequence":
        return list(described["pretokenizers"])
    return [described]


def _has_byte_level(described: dict[str, Any] | None) -> bool:
    return any(part.get("type") == "ByteLevel" for part in _parts(described))


def _known_pieces(described: dict[str, Any] | None) -> bool:
    parts = _parts(described)
    for part in parts:
        kind = part.get("type")
        if kind == "ByteLevel":
            if part.get("add_prefix_space"):
                return False
        elif kind == "Split":
            pattern = part.get("pattern", {}).get("Regex", "")
            # The patterns of GPT-2, GPT-4, Llama 3 and Qwen: letters apart, a space goes with what follows.
            if r"\p{L}+" not in pattern or r"|\s+(?!\S)|\s+" not in pattern or part.get("invert"):
                return False
        elif kind != "Digits":
            return False
    return _has_byte_level(described)
