"""data.filter: leaves out training documents that are no running text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.choices import Choices
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Facts, Share, Slot, Stage

BYTES_PER_SECOND = 7.5e6
"""The stage's own rules on English text, measured on one core."""
SAMPLE_BYTES = 32 * 2**20
SAMPLE_DOCUMENTS = 20_000
"""What a family that learns from the corpus sees of it, held in memory."""


class Rules(Choices, folder="engine.filters"):
    """Families of rules in force, each with its settings."""


class Filter(Stage):
    """Leaves out training documents that are no running text, each with the rule it failed and the value.

    Without `rules` it looks at length, signs, lost bytes, repetition and, where words are set apart by
    spaces, their length. These thresholds are loose: they take what is plainly broken and leave poems,
    manuals and dialogue. Held-out and test documents pass untouched, so that recipes with other rules are
    judged on the same text.

    `rules` adds families, the cheap ones first: `rules: [gopher_quality, gopher_repetition, c4, fineweb]`
    for text from the web, `language` for one language of many, `decontaminate` against evaluation sets.
    `prior` and `classifier` learn from the first 32 MB of the corpus that the other rules leave. Rules of
    words hold only where spaces part words, and each language has its own stop words.

    Pays when: the text comes from the web, from scans or from many hands.
    Hurts when: the corpus is code, tables or other text that looks like damage; set that rule to null. The
        rules for the web take poems, plays and lists; on text that was edited they only cost tokens.
    Cost: about 1 s for 10 MB on one core; as much again for all four families for the web.
    Source: rules of Gopher (Rae et al. 2021), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024);
        the stage's own are Gopher's, loosened.
    Measured here: not yet measured.
    """

    takes = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CORPUS
    version = 2

    min_characters: int | None = Field(default=20, ge=0, description="characters a document has at least")
    max_characters: int | None = Field(default=None, ge=1, description="characters a document has at most")
    max_symbols: float | None = Field(
        default=0.25,
        ge=0,
        le=1,
        description="share of signs: no letters, digits or usual marks",
    )
    max_replacement: float | None = Field(
        default=0.01, ge=0, le=1, description="share of U+FFFD characters, each a lost byte"
    )
    max_repeated_lines: float | None = Field(
        default=0.4, ge=0, le=1, description="share of characters in lines that stood before"
    )
    max_repeated_paragraphs: float | None = Field(
        default=0.4, ge=0, le=1, description="share of characters in paragraphs that stood before"
    )
    max_top_ngram: float | None = Field(
        default=0.25, ge=0, le=1, description="share covered by the commonest run of 3 words (6 characters)"
    )
    max_repeated_ngrams: float | None = Field(
        default=0.5, ge=0, le=1, description="share in runs of 10 words (20 characters) that occurred before"
    )
    min_word_length: float | None = Field(
        default=2.0, ge=0, description="mean characters of a word; only where words are set apart by spaces"
    )
    max_word_length: float | None = Field(
        default=20.0, ge=0, description="mean characters of a word; only where words are set apart by spaces"
    )
    rules: Rules | None = Field(
        default=None, description="families of rules: a list of names, or names with their settings"
    )

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Plans with every document kept."""
        from kogata.engine.sealing import SIZE_ON_DISK, seal_seconds

        corpus = facts["corpus"]
        assert corpus is not None
        size = corpus["splits"].get("train", {}).get("bytes", 0)
        sealing = machine.paced(seal_seconds(size))
        seconds = 0.05 + size / BYTES_PER_SECOND
        peak = 75 * 2**20 + min(size, 2**25)
        for _, module, _ in self._modules():
            seconds += size * module.SECONDS_PER_BYTE
            if hasattr(module, "learned"):
                # The sample as text, and as numbers several times its size.
                peak += round(6 * min(size, SAMPLE_BYTES))
                seconds += min(size, SAMPLE_BYTES) * module.SECONDS_PER_BYTE
        seconds = machine.paced(seconds) + sealing
        return Forecast(
            facts={key: corpus[key] for key in ("splits", "language_hint") if key in corpus},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round(SIZE_ON_DISK * size),
            seal_seconds=sealing,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Passes on what meets every rule; stops when no training document does."""
        from kogata.engine.filters._family import Family

        modules = self._modules()
        ready = [made.family(settings) for _, made, settings in modules if not hasattr(made, "learned")]
        passed = _judged(_counted(documents, account), [Family(checks=self._own()), *ready], account)
        for name, module, settings in modules:
            if hasattr(module, "learned"):
                passed = _learned(passed, name, module.learned, settings, account)
        trained = 0
        for document in passed:
            trained += document.split == "train"
            yield account.keep(document)
        if account.reasons and not trained:
            raise self._everything(account)

    def _modules(self) -> list[tuple[str, Any, Any]]:
        """Lists the families asked for: name, variant, settings; the cheap ones first."""
        from kogata.core.registry import registry

        chosen = self.rules.chosen.items() if self.rules else ()
        found = [(name, registry.variant("engine.filters", name), settings) for name, settings in chosen]
        return sorted(found, key=lambda item: item[1].SECONDS_PER_BYTE)

    def _own(self) -> list[Any]:
        """Lists the stage's own rules in force, the cheap ones first."""
        from kogata.engine.filters import _length, _repetition, _symbols, _words
        from kogata.engine.filters._family import bounds

        return bounds(
            self,
            {
                "min_characters": _length.characters,
                "max_characters": _length.characters,
                "max_replacement": _symbols.replacement_share,
                "max_symbols": _symbols.symbol_share,
                "max_repeated_lines": _repetition.repeated_line_share,
                "max_repeated_paragraphs": _repetition.repeated_paragraph_share,
                "min_word_length": _words.mean_word_length,
                "max_word_length": _words.mean_word_length,
                "max_top_ngram": _repetition.top_ngram_share,
                "max_repeated_ngrams": _repetition.repeated_ngram_share,
            },
        )

    def _everything(self, account: Account) -> DataError:
        from kogata.engine.text import reasons_table

        worst = max(account.reasons, key=lambda reason: account.reasons[reason])
        return DataError(
            "every training document was rejected",
            where="data.filter",
            found=reasons_table(account),
            expected="at least one training document that meets every rule",
            remedy=f"loosen the rule {worst.split()[0]} or set it to null, or leave data.filter out",
        )


def _counted(documents: Iterable[Document], account: Account) -> Iterator[Document]:
    from kogata.engine.text import utf8_length

    for document in documents:
        account.read += 1
        account.read_bytes += utf8_length(document.text)
        yield document


def _judged(documents: Iterable[Document], families: list[Any], account: Account) -> Iterator[Document]:
    """Passes on the documents that meet every rule, their lines cleaned; counts the others."""
    from kogata.engine.filters._view import View

    for document in documents:
        if document.split != "train":
            yield document
            continue
        view = View(document.text, document.meta)
        for family in families:
            if family.clean is not None:
                text, gone = family.clean(view)
                if gone:
                    lines = account.extra.setdefault("lines_taken_out", {})
                    for reason, count in gone.items():
                        lines[reason] = lines.get(reason, 0) + count
                    view = View(text, document.meta)
                    if not text.strip():
                        account.reject(next(iter(gone)), document, f"all of {sum(gone.values())} lines")
                        break
            failed = next(
                ((reason, value) for reason, broken in family.checks if (value := broken(view)) is not None),
                None,
            )
            if failed is not None:
                account.reject(failed[0], document, failed[1])
                break
        else:
            yield document if view.text is document.text else replace(document, text=view.text)


def _learned(
    documents: Iterable[Document], name: str, learn: Any, settings: Any, account: Account
) -> Iterator[Document]:
    """Holds the first training documents, lets a family learn from them, and judges all."""
    from itertools import chain

    from kogata.engine.text import utf8_length

    stream = iter(documents)
    sample: list[Document] = []
    size = 0
    for document in stream:
        if document.split != "train":
            yield document
            continue
        sample.append(document)
        size += utf8_length(document.text)
        if size >= SAMPLE_BYTES or len(sample) >= SAMPLE_DOCUMENTS:
            break
    if not sample:
        return
    family = learn(settings, sample)
    account.extra.setdefault("learned_from", {})[name] = {"documents": len(sample), "bytes": size}
    yield from _judged(chain(_emptied(sample), stream), [family], account)


def _emptied(documents: list[Document]) -> Iterator[Document]:
    """Yields the documents of a list and lets go of each."""
    documents.reverse()
    while documents:
        yield documents.pop()
