"""tokenizer.encode: a corpus becomes token ids on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import SPLITS, Artifact, Document, Kind
from kogata.core.errors import DataError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, Share, Slot, Stage, one

if TYPE_CHECKING:
    from kogata.engine.tokenizer import TextTokenizer

BATCH_BYTES = 2 * 2**20
"""Text encoded at a time."""
SPACED_BYTES_PER_SECOND = 4.5e6
"""Wall-clock on two cores; words recur and are remembered."""
UNSPACED_BYTES_PER_SECOND = 4e6
READ_BYTES_PER_SECOND = 200e6


class Encode(Stage):
    """Writes every split as token ids: memory-mapped files, each document followed by the end token.

    Document boundaries are kept. Special tokens that occur in the text are text: no document can end
    another. Ids equal those of encoding each document whole. After data.mix each document's source is kept
    beside its ids, so that training can sample by source; so are numbers that documents carry, when named.

    Pays when: always before training.
    Hurts when: never known to.
    Cost: about 0.2 s for a megabyte on two cores; memory 0.3 GB, whatever the size; disk 2 bytes a token.
    Source: Kogata.
    Measured here: not yet measured.
    """

    takes = {
        "corpus": Slot(kinds=(Kind.CORPUS,)),
        "tokenizer": Slot(kinds=(Kind.TOKENIZER, Kind.MODEL)),
    }
    makes = Kind.TOKENS

    columns: list[str] = Field(
        default_factory=list,
        description="numbers in the documents' `meta` to keep beside their ids, for a curriculum by column",
    )

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Estimates tokens from bytes and the tokenizer's bytes per token."""
        from kogata.engine.text import UNSPACED

        corpus, tokenizer = facts["corpus"], facts["tokenizer"]
        assert corpus is not None and tokenizer is not None
        each = tokenizer.get("bytes_per_token") or _bytes_per_token(corpus)
        width = 2 if tokenizer["vocab_size"] <= 65_535 else 4
        splits: dict[str, dict[str, int]] = {}
        for name, part in corpus["splits"].items():
            tokens = round(part["bytes"] / each) + part["documents"]
            splits[name] = {"documents": part["documents"], "tokens": tokens, "bytes": part["bytes"]}
        size = sum(part["bytes"] for part in splits.values())
        tokens = sum(part["tokens"] for part in splits.values())
        sources = {
            name: {"tokens": round(one["epochs"] * one["size"] / each)}
            for name, one in (corpus.get("mixture") or {}).items()
        }
        unspaced = corpus.get("language_hint") in UNSPACED
        rate = UNSPACED_BYTES_PER_SECOND if unspaced else SPACED_BYTES_PER_SECOND
        seconds = machine.paced(0.3 + size / rate + size / READ_BYTES_PER_SECOND)
        return Forecast(
            facts={
                "vocab_size": tokenizer["vocab_size"],
                "end_id": tokenizer.get("end_id", 0),
                "tokenizer_digest": tokenizer.get("tokenizer_digest"),
                "dtype": f"uint{8 * width}",
                "splits": splits,
                **_beside(sources, self.columns),
            },
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds * 1.4,
                joules=machine.joules(seconds),
                peak_bytes=75 * 2**20 + 50 * min(size, BATCH_BYTES) + min(size, 2**26),
                size_bytes=tokens * width,
            ),
            disk_bytes=tokens * width,
        )

    def run(self, given: Given, bench: Bench) -> Facts:
        """Encodes split by split, document by document."""
        from kogata.engine.kept import Kept
        from kogata.engine.text import read_corpus
        from kogata.engine.tokenizer import TextTokenizer
        from kogata.engine.tokens import TOKENIZER_FILES, dtype_for

        corpus, source = one(given, "corpus"), one(given, "tokenizer")
        tokenizer = TextTokenizer(source.path)
        end_id = _end_id(source, tokenizer)
        vocab_size = max(tokenizer.vocab_size, int(source.facts.get("vocab_size") or 0))
        total = sum(part["bytes"] for part in corpus.facts["splits"].values())
        splits: dict[str, dict[str, int]] = {}
        kept = Kept(self.columns)
        done = 0
        for name in SPLITS:
            if name not in corpus.facts["splits"]:
                continue
            counts = _encode_split(
                kept.watch(read_corpus(corpus.path, name), name),
                tokenizer,
                bench,
                name,
                vocab_size,
                end_id,
                done,
                total,
            )
            splits[name] = counts
            done += counts["bytes"]
        if not splits.get("train", {}).get("tokens"):
            raise DataError("nothing to encode", where="split train", found="no training text")
        folder = bench.out / "tokenizer"
        folder.mkdir()
        for file in TOKENIZER_FILES:
            if (source.path / file).is_file():
                shutil.copyfile(source.path / file, folder / file)
        sources = kept.write(bench.out)
        bench.count(tokens=sum(part["tokens"] for part in splits.values()))
        return {
            "vocab_size": vocab_size,
            "end_id": end_id,
            "tokenizer_digest": tokenizer.digest,
            "dtype": f"uint{8 * dtype_for(vocab_size).itemsize}",
            "splits": splits,
            **_beside(sources, self.columns),
        }


def _beside(sources: Facts, columns: list[str]) -> Facts:
    """Gives the facts of what is kept beside the ids; nothing of one source and no columns."""
    facts: Facts = {"sources": sources} if len(sources) > 1 else {}
    return {**facts, "columns": columns} if columns else facts


def _encode_split(
    documents: Iterable[Document],
    tokenizer: TextTokenizer,
    bench: Bench,
    split: str,
    vocab_size: int,
    end_id: int,
    done: int,
    total: int,
) -> dict[str, int]:
    from kogata.engine.tokens import TokenWriter

    writer = TokenWriter(bench.out, split, vocab_size, end_id)
    counts = {"documents": 0, "tokens": 0, "bytes": 0}
    try:
        for batch, size in _batches(documents):
            if bench.stopping():
                raise Stopped("stopped while encoding")
            for ids in tokenizer.encode_documents(batch):
                writer.write(ids)
            counts["documents"] += len(batch)
            counts["bytes"] += size
            bench.progress(done + counts["bytes"], total, unit="bytes")
    finally:
        writer.close()
    counts["tokens"] = writer.tokens
    return counts


def _batches(documents: Iterable[Document]) -> Iterator[tuple[list[Document], int]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text.encode("utf-8"))
        if size >= BATCH_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _end_id(source: Artifact, tokenizer: TextTokenizer) -> int:
    known: Any = source.facts.get("end_id")
    return int(known) if known is not None else tokenizer.end_id


def _bytes_per_token(corpus: Facts) -> float:
    """Guesses what a large vocabulary of somebody else's gives: 4 bytes, less where characters are long."""
    train = corpus["splits"].get("train", {})
    each = train.get("bytes", 1) / max(1, train.get("characters", 1))
    return 4.2 if each < 1.3 else 3.0
