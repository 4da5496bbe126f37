"""data.dedup: leaves out copies and near-copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from kogata.core.amounts import Bytes, Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Bench, Facts, Given, Resolved, Share, Slot, Stage, one
from kogata.core.variants import Choice

BYTES_PER_SECOND = 80e6
"""Normalising and hashing, measured on one core."""
BYTES_PER_DOCUMENT = 250
"""Memory of one document's hash and name, where documents stream by."""
WHOLE_BYTES_PER_SECOND = {"exact": 80e6, "heldout": 80e6, "lines": 40e6, "minhash": 22e6}
"""Taking notes, by method; two methods that need the same notes take them once."""
NOTES_SHARE = {"exact": 0.0, "heldout": 0.0, "lines": 0.25, "minhash": 0.75}
"""Bytes of notes on disk by byte of text."""
NOTES_PER_DOCUMENT = 300
"""Bytes of notes on disk that each document takes: its bands, fingerprint and name."""
MUCH_BYTES = 200 * 10**6
"""From so much text on, `auto` takes more than one process."""
PROCESS_BYTES = 120 * 2**20
"""Peak of each further process."""
PROCESS_SECONDS = 1.2
"""Starting them, to take notes and to join bands."""
MOST_PROCESSES = 8
RAY_SECONDS = 8.0
"""Starting a Ray of this machine's own."""
TABLE_PER_DOCUMENT = 100
"""Memory of one document while methods decide."""


class Method(Choice, folder="engine.dedup"):
    """One way to find duplicates."""


class Dedup(Stage):
    """Leaves out copies and near-copies of training documents, and training copies of held-out documents.

    By default exact copies go: two documents are copies when they are equal up to Unicode form (NFC) and
    white space. The first stays, and each copy is counted with the document it copies. That is done as the
    documents stream by, in one pass with the stages before.

    `methods: [heldout, exact, minhash, lines]` also takes out near-duplicates, and lines that repeat on a
    host's pages. Near-duplicates are documents of which 80 % of the runs of five words (of five characters in
    Japanese and Chinese) are those of another one: candidates are found by MinHash, and every one is
    compared exactly before it goes. The longest of a cluster stays. Then the stage reads the corpus twice,
    keeps its notes on disk, and goes on after a kill with the shard it was in. The artifact's
    `clusters.jsonl.zst` says what duplicated what, how it was found and how similar the two are. A corpus
    that was done earlier is given with `use: {earlier: LABEL}`: what is in it already is left out, and it is
    not written again.

    Held-out and test documents are never removed.

    Pays when: the text was gathered from many places or crawled.
    Hurts when: repetition is meant, as for a few documents that should weigh more; near-duplicates: texts
        made from one template (licences, forms, tables) that differ in the few words that matter.
    Cost: about 1 s for 80 MB on one core, with minhash 1 s for 14 MB; memory 250 bytes a document, with
        minhash 100 bytes a document and the `memory` it is given.
    Source: Lee et al. 2021, Deduplicating Training Data Makes Language Models Better; MinHash: Broder 1997,
        with one permutation and optimal densification (Shrivastava 2017).
    Measured here: 5,659 [dedup.json:near_duplicates.pairs:,] pairs at 0.8 or more among
        6,546 [dedup.json:near_duplicates.documents:,] documents: recall
        1.0000 [dedup.json:near_duplicates.recall:.4f], precision
        1.0000 [dedup.json:near_duplicates.precision:.4f] by exact similarity; at most
        150MiB [dedup.json:memory.peak_bytes.default:bytes] for
        200,000 [dedup.json:memory.documents:,] documents.
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "corpus": Slot(kinds=(Kind.CORPUS,)),
        "earlier": Slot(kinds=(Kind.CORPUS,), optional=True, asked=True),
    }
    makes = Kind.CORPUS
    cost_only = frozenset({"processes"})

    methods: list[Method] = Field(
        default_factory=lambda: [Method.of("heldout"), Method.of("exact")],
        min_length=1,
        description="what is looked for, in this order: heldout, exact, minhash; lines always comes last",
    )
    memory: Bytes = Field(
        default=512 * 2**20,
        ge=2**20,
        description="bytes that joining near-duplicates and lines may hold at once; more passes where less",
    )

    processes: Annotated[int, Field(ge=1)] | Literal["auto", "ray"] = Field(
        default="auto",
        description="processes that take notes and join bands, where the corpus is read twice; auto takes "
        "one for each core where there is much text, ray those of the cluster that RAY_ADDRESS names, or of "
        "a Ray on this machine",
    )

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the number of processes; the corpus does not depend on it."""
        if self.processes != "auto":
            return Resolved(stage=self)
        corpus, earlier = facts["corpus"], facts.get("earlier")
        assert corpus is not None
        size = _total(corpus)[0] + (_total(earlier)[0] if earlier is not None else 0)
        memory = share.memory_bytes or machine.memory_bytes
        fitting = max(1, (memory - self.memory) // (2 * PROCESS_BYTES)) if memory else MOST_PROCESSES
        if self.streams() and earlier is None:
            count, why = 1, "documents stream by"
        elif size < MUCH_BYTES:
            count, why = 1, "too little text for more"
        else:
            count, why = min(machine.cores, fitting, MOST_PROCESSES), "by cores and memory"
        return Resolved(
            stage=self.model_copy(update={"processes": count}), reasons={"processes": f"{count}: {why}"}
        )

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: list[Method]) -> list[Method]:
        names = [method.name for method in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"found {' and '.join(twice)} twice; each method is named once")
        return value

    def streams(self) -> bool:
        """Says whether every method needs only what came before."""
        return all(method.variant.STREAMS for method in self.methods)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Plans with no copies found."""
        from kogata.engine.sealing import (
            READ_BYTES_PER_SECOND,
            SIZE_ON_DISK,
            WRITE_BYTES_PER_SECOND,
            seal_seconds,
        )

        corpus, earlier = facts["corpus"], facts.get("earlier")
        assert corpus is not None
        size, documents = _total(corpus)
        made = {key: corpus[key] for key in ("splits", "language_hint") if key in corpus}
        if self.streams() and earlier is None:
            sealing = machine.paced(seal_seconds(size))
            seconds = machine.paced(0.05 + size / BYTES_PER_SECOND) + sealing
            peak, disk = 75 * 2**20 + BYTES_PER_DOCUMENT * documents, round(SIZE_ON_DISK * size)
            cpu = seconds
        else:
            sealing = 0.0
            before, more = _total(earlier) if earlier is not None else (0, 0)
            noted, names = size + before, [method.name for method in self.methods]
            takers = {"exact" if name == "heldout" else name for name in names}
            each = sum(1 / WHOLE_BYTES_PER_SECOND.get(name, 20e6) for name in takers)
            taking = machine.paced(noted * (each + 1 / READ_BYTES_PER_SECOND))
            seconds = machine.paced(0.3 + size * (1 / READ_BYTES_PER_SECOND + 1 / WRITE_BYTES_PER_SECOND))
            notes = sum(NOTES_SHARE.get(name, 1.0) for name in takers) * noted
            notes += NOTES_PER_DOCUMENT * (documents + more)
            # Keys of a band or numbers of lines are sorted; the sets themselves are read one by one.
            sorted_at_once = {"minhash": 60 * (documents + more), "lines": round(0.75 * noted)}
            joining = min(self.memory, max(sorted_at_once.get(name, 0) for name in takers))
            peak = 130 * 2**20 + TABLE_PER_DOCUMENT * (documents + more) + joining
            disk = round(2 * SIZE_ON_DISK * size + notes)
            ray = self.processes == "ray"
            count = self.processes if isinstance(self.processes, int) else machine.cores if ray else 1
            peak += PROCESS_BYTES * count if count > 1 and not ray else 0
            cpu = seconds + taking + PROCESS_SECONDS * count * (count > 1)
            seconds += taking / count + PROCESS_SECONDS * (count > 1) + RAY_SECONDS * ray
        return Forecast(
            facts=made,
            cost=Cost(
                seconds=seconds,
                cpu_seconds=cpu,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=disk,
            seal_seconds=sealing,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Passes on each document whose text was not seen before."""
        from kogata.engine.copies import fingerprint

        reasons = [method.variant.reason for method in self.methods]
        seen: dict[bytes, tuple[str, bool]] = {}
        late: set[bytes] = set()
        for document in documents:
            account.read += 1
            account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
            name = fingerprint(document.text)
            before = seen.get(name)
            if document.split != "train":
                if before is None or before[1]:
                    seen[name] = (document.id, False)
                    if before is not None:
                        late.add(name)
                if name in late:
                    # Its copy streamed by before we knew; say so, for the judgement is not clean.
                    known = account.extra.get("held_out_copies_left_in_train", 0)
                    account.extra["held_out_copies_left_in_train"] = known + 1
                yield account.keep(document)
                continue
            found = next((text for why in reasons if before and (text := why(before[1]))), None)
            if before is None or found is None:
                seen.setdefault(name, (document.id, True))
                yield account.keep(document)
            else:
                account.reject(found, document, f"of {before[0]}")

    def run(self, given: Given, bench: Bench) -> Facts:
        """Notes, decides and writes, where a method looks at the whole corpus or an earlier one is given."""
        from kogata.engine.dedup._passes import Method as Named
        from kogata.engine.dedup._passes import deduplicate

        earlier = given.get("earlier")
        methods = [Named(method.name, method.variant, method.settings) for method in self.methods]
        return deduplicate(
            one(given, "corpus").path,
            earlier.path if earlier else None,
            methods,
            self.memory,
            bench,
            self.processes if isinstance(self.processes, int) and _ours(methods) else 1,
            bench.spread if self.processes == "ray" and _ours(methods) else None,
        )


def _ours(methods: Sequence[Any]) -> bool:
    """Says whether other processes know the methods: a plug-in's are known to this one alone."""
    return all(method.variant.__name__.startswith("kogata.") for method in methods)


def _total(corpus: Facts) -> tuple[int, int]:
    """Gives bytes and documents of all splits."""
    parts = corpus["splits"].values()
    return sum(part["bytes"] for part in parts), sum(part["documents"] for part in parts)
