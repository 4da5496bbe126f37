"""data.filter: leaves out training documents that are no running text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Facts, Share, Slot, Stage

BYTES_PER_SECOND = 10e6
"""All rules on English text, measured on one core."""


class Filter(Stage):
    """Leaves out training documents that are no running text, each with the rule it failed and the value.

    Looks at length, signs, lost bytes, repetition and, where words are set apart by spaces, their length.
    The thresholds are loose: they take what is plainly broken and leave poems, manuals and dialogue.
    Held-out and test documents pass untouched, so that recipes with other rules are judged on the same text.

    Pays when: the text comes from the web, from scans or from many hands.
    Hurts when: the corpus is code, tables or other text that looks like damage; set that rule to null.
    Cost: about 1 s for 10 MB on one core.
    Source: rules of Gopher (Rae et al. 2021), loosened; per document, no list of words.
    Measured here: not yet measured.
    """

    takes = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CORPUS

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

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Plans with every document kept."""
        corpus = facts["corpus"]
        assert corpus is not None
        size = corpus["splits"].get("train", {}).get("bytes", 0)
        seconds = 0.05 + size / BYTES_PER_SECOND
        return Forecast(
            facts={key: corpus[key] for key in ("splits", "language_hint") if key in corpus},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=75 * 2**20 + min(size, 2**25),
                size_bytes=round(0.37 * size),
            ),
            disk_bytes=0,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Passes on what meets every rule; stops when no training document does."""
        from kogata.engine.filters._view import View

        rules = self._rules()
        trained = dropped = 0
        for document in documents:
            account.read += 1
            account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
            if document.split != "train":
                yield account.keep(document)
                continue
            view = View(document.text)
            failed = next(
                ((reason, value) for reason, broken in rules if (value := broken(view)) is not None), None
            )
            if failed is None:
                trained += 1
                yield account.keep(document)
            else:
                dropped += 1
                account.reject(failed[0], document, failed[1])
        if dropped and not trained:
            raise self._everything(account)

    def _rules(self) -> list[tuple[str, Callable[[Any], float | None]]]:
        """Lists the rules in force, the cheap ones first: reason, and a function giving a forbidden value."""
        from kogata.engine.filters import length, repetition, symbols, words

        measures: list[tuple[str, Callable[[Any], float | None]]] = [
            ("min_characters", length.characters),
            ("max_characters", length.characters),
            ("max_replacement", symbols.replacement_share),
            ("max_symbols", symbols.symbol_share),
            ("max_repeated_lines", repetition.repeated_line_share),
            ("max_repeated_paragraphs", repetition.repeated_paragraph_share),
            ("min_word_length", words.mean_word_length),
            ("max_word_length", words.mean_word_length),
            ("max_top_ngram", repetition.top_ngram_share),
            ("max_repeated_ngrams", repetition.repeated_ngram_share),
        ]
        found: list[tuple[str, Callable[[Any], float | None]]] = []
        for name, measure in measures:
            threshold = getattr(self, name)
            if threshold is not None:
                found.append((f"{name} {threshold:g}", _breaks(measure, threshold, name.startswith("min"))))
        return found

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


def _breaks(
    measure: Callable[[Any], float | None], threshold: float, least: bool
) -> Callable[[Any], float | None]:
    def broken(view: Any) -> float | None:
        value = measure(view)
        if value is None or (value >= threshold if least else value <= threshold):
            return None
        return round(value, 4)

    return broken
