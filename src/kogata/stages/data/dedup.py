"""data.dedup: leaves out copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Facts, Share, Slot, Stage

BYTES_PER_SECOND = 80e6
"""Normalising and hashing, measured on one core."""
BYTES_PER_DOCUMENT = 250
"""Memory of one document's hash and name."""


class Dedup(Stage):
    """Leaves out exact copies of training documents, and training copies of held-out and test documents.

    Two documents are copies when they are equal up to Unicode form (NFC) and white space. The first stays,
    and each copy is counted with the document it copies. Held-out and test documents are never removed.

    Pays when: the text was gathered from many places or crawled.
    Hurts when: repetition is meant, as for a few documents that should weigh more.
    Cost: about 1 s for 80 MB on one core; memory 250 bytes a document.
    Source: Lee et al. 2021, Deduplicating Training Data Makes Language Models Better (the exact part).
    Measured here: not yet measured.
    """

    takes = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CORPUS

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Plans with no copies found."""
        corpus = facts["corpus"]
        assert corpus is not None
        size = sum(part["bytes"] for part in corpus["splits"].values())
        documents = sum(part["documents"] for part in corpus["splits"].values())
        seconds = 0.05 + size / BYTES_PER_SECOND
        return Forecast(
            facts={key: corpus[key] for key in ("splits", "language_hint") if key in corpus},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=75 * 2**20 + BYTES_PER_DOCUMENT * documents,
                size_bytes=round(0.37 * size),
            ),
            disk_bytes=0,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Passes on each document whose text was not seen before."""
        from kogata.engine.copies import fingerprint

        seen: dict[bytes, tuple[str, bool]] = {}
        for document in documents:
            account.read += 1
            account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
            name = fingerprint(document.text)
            before = seen.get(name)
            if document.split != "train":
                if before is not None and before[1]:
                    # It streamed by before we knew; say so, for the judgement is not clean.
                    late = account.extra.get("held_out_copies_left_in_train", 0)
                    account.extra["held_out_copies_left_in_train"] = late + 1
                seen.setdefault(name, (document.id, False))
                yield account.keep(document)
            elif before is None:
                seen[name] = (document.id, True)
                yield account.keep(document)
            else:
                reason = "copy" if before[1] else "copy of a held-out or test document"
                account.reject(reason, document, f"of {before[0]}")
