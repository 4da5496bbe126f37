"""Small tokenizers of SentencePiece's kinds, learned on lines half English and half Japanese, for tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from small_models import random_decoder, small_spec
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from kogata.engine.convert import save_decoder
from kogata.engine.hf_folder import write_json

DATA = Path(__file__).parents[1] / "examples" / "data"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
FIRST = ["<unk>", "<s>", "</s>"]
KINDS = ["unigram", "unigram without a space in front", "llama", "gemma"]


def lines() -> list[str]:
    works = gzip.open(DATA / "aozora-heldout" / "works.jsonl.gz", "rt", encoding="utf-8")
    japanese = [
        line for row in list(works)[:2] for line in json.loads(row)["text"].splitlines() if line.strip()
    ]
    novel = gzip.open(DATA / "novels-heldout" / "Trollope_Warden_1855.txt.gz", "rt", encoding="utf-8").read(
        60_000
    )
    english = [line for line in novel.splitlines() if line.strip()]
    return [line.strip() for pair in zip(japanese[:150], english[:150], strict=False) for line in pair]


LINES = lines()


def unigram(split: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = split
    settings: dict[str, Any] = {"vocab_size": 1400, "special_tokens": [*FIRST, *BYTES], "unk_token": "<unk>"}
    tokenizer.train_from_iterator(LINES, trainers.UnigramTrainer(**settings, show_progress=False))
    return tokenizer


def joined(before: Any, split: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = before
    if split is not None:
        tokenizer.pre_tokenizer = split
    settings: dict[str, Any] = {"vocab_size": 1400, "special_tokens": [*FIRST, *BYTES]}
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(**settings, show_progress=False))
    return tokenizer


def made(kind: str) -> Tokenizer:
    """Gives one of `KINDS`."""
    spaces = normalizers.Replace(" ", "▁")
    return {
        "unigram": lambda: unigram(pre_tokenizers.Metaspace(prepend_scheme="always", split=False)),
        "unigram without a space in front": lambda: unigram(
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        ),
        "llama": lambda: joined(normalizers.Sequence([normalizers.Prepend("▁"), spaces])),
        "gemma": lambda: joined(spaces, pre_tokenizers.Split(" ", "merged_with_previous")),
    }[kind]()


def model(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Tokenizer:
    """Writes a small random model with a tokenizer, whose JSON may be changed; gives the tokenizer."""
    described = json.loads(tokenizer.to_str())
    described["model"]["byte_fallback"] = True
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in FIRST]
    described |= changes
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    named = {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})
    size = len(described["model"]["vocab"])
    save_decoder(random_decoder(small_spec(vocab_size=size)), folder, tokenizer_files_from=folder)
    found = Tokenizer.from_str(json.dumps(described))
    found.encode_special_tokens = True
    return found
