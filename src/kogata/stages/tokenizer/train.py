"""tokenizer.train: training text becomes a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Kind
from kogata.core.errors import DataError, RecipeError, Stopped
from kogata.core.receipt import Machine
from kogata.core.registry import registry
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one

READ_BYTES_PER_SECOND = 200e6
"""Reading a corpus, measured on one core."""
LEAST_VOCABULARY = 257
"""256 bytes and the end token."""


class Train(Stage):
    """Makes a tokenizer from the training text: byte-level, so any text can be written.

    It sees training documents only, never held-out or test text, and at most about 5 MB of them (2.5 MB
    where words are not set apart by spaces), chosen by content: more hardly changes the vocabulary. The
    pre-tokeniser is one that llama.cpp knows by name, so exported models get the same ids there.

    Pays when: a model is trained from scratch.
    Hurts when: a model is continued or fine-tuned: it needs its own tokenizer.
    Cost: 2 to 6 s, whatever the size of the corpus; text without spaces takes longest.
    Source: byte-level BPE, Radford et al. 2019; pre-tokeniser of Qwen2.
    Measured here: not yet measured.
    """

    takes = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.TOKENIZER

    method: str = Field(
        default="bpe", description="bpe (pairs of bytes that occur often), or characters (one token each)"
    )
    vocab_size: int | Literal["auto"] = Field(
        default="auto", description="entries of the vocabulary, the end token among them; auto by the data"
    )
    pre: Literal["auto", "qwen2", "gpt-2"] = Field(
        default="auto",
        description="how text is cut before pairs are counted, by its name in llama.cpp: qwen2 keeps a mark "
        "with the word after it and digits apart, gpt-2 is older",
    )

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        names = registry.variant_names("engine.vocabulary")
        if value not in names:
            raise ValueError(f"unknown method {value!r}; expected one of {', '.join(names)}")
        return value

    @field_validator("vocab_size")
    @classmethod
    def _sensible(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 2 <= value <= 1_000_000:
            raise ValueError(f"found {value}; a vocabulary has between 2 and 1,000,000 entries")
        return value

    @model_validator(mode="after")
    def _every_byte(self) -> Train:
        if self.method == "bpe" and isinstance(self.vocab_size, int) and self.vocab_size < LEAST_VOCABULARY:
            raise RecipeError(
                "the vocabulary is too small for single bytes",
                found=f"vocab_size: {self.vocab_size}",
                expected=f"at least {LEAST_VOCABULARY} (256 bytes and the end token), or auto",
                remedy="for one token a character write `method: characters`",
            )
        return self

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the size of the vocabulary and the pre-tokeniser."""
        corpus = facts["corpus"]
        assert corpus is not None
        changes: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if self.vocab_size == "auto":
            way = registry.variant("engine.vocabulary", self.method)
            size, reason = way.auto_size(corpus, getattr(share, "budget_seconds", None))
            reasons["vocab_size"] = f"{size}: {reason}" if size else reason
            if size is not None:
                changes["vocab_size"] = size
        if self.pre == "auto":
            changes["pre"] = "qwen2"
            reasons["pre"] = (
                "qwen2: 2–4 % fewer tokens than gpt-2 on English and Japanese, and known to llama.cpp"
            )
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Estimates from the size and language of the training text."""
        corpus = facts["corpus"]
        assert corpus is not None
        way = registry.variant("engine.vocabulary", self.method)
        asked = self.vocab_size if isinstance(self.vocab_size, int) else None
        vocab_size, bytes_per_token = way.expected(corpus, asked)
        size = corpus["splits"].get("train", {}).get("bytes", 0)
        seen = min(size, way.sample_bytes(corpus) or size)
        seconds = machine.paced(0.4 + size / READ_BYTES_PER_SECOND + way.train_seconds(corpus, seen))
        return Forecast(
            facts={
                "vocab_size": vocab_size,
                "end_id": 0,
                "end_token": "<|endoftext|>",
                "pre": "qwen2" if self.pre == "auto" else self.pre,
                "method": self.method,
                "bytes_per_token": bytes_per_token,
            },
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds * 1.5,
                joules=machine.joules(seconds),
                peak_bytes=75 * 2**20 + way.train_bytes(corpus, seen),
                size_bytes=30 * vocab_size,
            ),
            disk_bytes=30 * vocab_size,
        )

    def run(self, given: Given, bench: Bench) -> Facts:
        """Trains on a sample of the training split and writes the two tokenizer files."""
        from kogata.engine import tokenizer as engine
        from kogata.engine.text import read_corpus
        from kogata.engine.tokens import tokenizer_digest

        corpus = one(given, "corpus")
        way = registry.variant("engine.vocabulary", self.method)
        total = corpus.facts["splits"].get("train", {}).get("bytes", 0)
        if not total:
            raise DataError(
                "nothing to train a tokenizer on",
                where=f"the corpus given to {bench.label}",
                found="no training text",
                remedy="look at what data.read and the filters dropped, and why",
            )
        pre = "qwen2" if self.pre == "auto" else self.pre
        limit = way.sample_bytes(corpus.facts) or total
        kept: list[str] = []
        seen = 0

        def texts() -> Iterator[str]:
            nonlocal seen
            documents = read_corpus(corpus.path, "train")
            for text in engine.sample(documents, total, limit):
                if bench.stopping():
                    raise Stopped("stopped while reading the training text")
                if len(kept) < 64:
                    kept.append(text)
                seen += len(text)
                bench.progress(seen, None, unit="characters")
                yield text

        size = self.vocab_size if isinstance(self.vocab_size, int) else None
        trained = way.train(texts(), size, pre)
        engine.save(trained, bench.out)
        made = engine.TextTokenizer(bench.out)
        ids = sum(len(made.encode(text)) for text in kept)
        return {
            "vocab_size": made.vocab_size,
            "end_id": made.end_id,
            "end_token": engine.END,
            "pre": pre,
            "method": self.method,
            "bytes_per_token": round(sum(len(text.encode()) for text in kept) / max(1, ids), 4),
            "tokenizer_digest": tokenizer_digest(bench.out),
            "trained_on_characters": seen,
        }
