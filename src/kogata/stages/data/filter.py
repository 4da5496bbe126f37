"""data.filter: leaves out training documents that are no running text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.choices import Choices
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Facts, Resolved, Share, Slot, Stage

if TYPE_CHECKING:
    from kogata.engine.filters._judge import Judge

BYTES_PER_SECOND = 7.5e6
"""The stage's own rules on English text, measured on one core."""
MUCH_BYTES = 200 * 10**6
"""From so much text on, `auto` takes more than one process."""
BASE_BYTES = 75 * 2**20
PROCESS_BYTES = 90 * 2**20
"""Peak of each further process."""
PROCESS_SECONDS = 0.7
"""Starting them."""
RAY_SECONDS = 8.0
"""Starting a Ray of this machine's own."""
MOST_PROCESSES = 8
"""One process reads for all; more than this wait for it."""
BATCH = 64
"""Documents sent at a time."""
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
    Cost: about 1 s for 10 MB on one core; as much again for all four families for the web. What was judged
        is noted as it goes, so a kill costs at most 200 documents.
    Source: rules of Gopher (Rae et al. 2021), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024);
        the stage's own are Gopher's, loosened.
    Measured here: on novels, manuals, web text and Japanese text the stage's own rules took
        0.4% [filters.json:arms.own.clean:.1%] of the bytes, of junk (spam, raw HTML, words in random
        order) 1.4% [filters.json:arms.own.junk:.1%]; the four families for the web
        14.3% [filters.json:arms.web.clean:.1%] and 87.2% [filters.json:arms.web.junk:.1%].
    """

    takes = {"corpus": Slot(kinds=(Kind.CORPUS,))}
    makes = Kind.CORPUS
    version = 3
    cost_only = frozenset({"processes"})

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
    processes: Annotated[int, Field(ge=1)] | Literal["auto", "ray"] = Field(
        default="auto",
        description="processes that judge documents; auto takes one for each core where there is much text, "
        "ray those of the cluster that RAY_ADDRESS names, or of a Ray on this machine",
    )

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the number of processes; the corpus does not depend on it."""
        if self.processes != "auto":
            return Resolved(stage=self)
        corpus = facts["corpus"]
        assert corpus is not None
        size = corpus["splits"].get("train", {}).get("bytes", 0)
        memory = share.memory_bytes or machine.memory_bytes
        fitting = max(1, (memory - BASE_BYTES) // (2 * PROCESS_BYTES)) if memory else MOST_PROCESSES
        count = 1 if size < MUCH_BYTES else min(machine.cores, fitting, MOST_PROCESSES)
        why = "too little text for more" if size < MUCH_BYTES else "by cores and memory"
        return Resolved(
            stage=self.model_copy(update={"processes": count}), reasons={"processes": f"{count}: {why}"}
        )

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Plans with every document kept."""
        from kogata.engine.sealing import SIZE_ON_DISK, seal_seconds

        corpus = facts["corpus"]
        assert corpus is not None
        size = corpus["splits"].get("train", {}).get("bytes", 0)
        sealing = machine.paced(seal_seconds(size))
        ray = self.processes == "ray"
        count = self.processes if isinstance(self.processes, int) else machine.cores if ray else 1
        work, alone = size / BYTES_PER_SECOND, 0.05
        peak = BASE_BYTES + min(size, 2**25) + (PROCESS_BYTES * count if count > 1 and not ray else 0)
        for _, module, _ in self._modules():
            if hasattr(module, "learned"):
                # The sample as text, and as numbers several times its size.
                peak += round(6 * min(size, SAMPLE_BYTES))
                alone += (size + min(size, SAMPLE_BYTES)) * module.SECONDS_PER_BYTE
            else:
                work += size * module.SECONDS_PER_BYTE
        work, alone = machine.paced(work), machine.paced(alone) + sealing
        starting = machine.paced(PROCESS_SECONDS) * (count > 1)
        seconds = alone + work / count + starting + RAY_SECONDS * ray
        cpu = alone + work + starting * count
        return Forecast(
            facts={key: corpus[key] for key in ("splits", "language_hint") if key in corpus},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=cpu,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round(SIZE_ON_DISK * size),
            seal_seconds=sealing,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Passes on what meets every rule; stops when no training document does."""
        from kogata.engine.filters._judge import Judge

        modules = self._modules()
        ready = tuple((name, settings) for name, made, settings in modules if not hasattr(made, "learned"))
        own = {name: getattr(self, name) for name in type(self).model_fields if name[:4] in ("min_", "max_")}
        judge = Judge(own=own, rules=ready)
        passed = self._judged(_counted(documents, account), judge, account, "rules")
        for name, module, settings in modules:
            if hasattr(module, "learned"):
                passed = self._learned(passed, name, module.learned, settings, account)
        trained = 0
        for document in passed:
            trained += document.split == "train"
            yield account.keep(document)
        if account.reasons and not trained:
            raise self._everything(account)

    def _judged(
        self, documents: Iterable[Document], judge: Judge, account: Account, what: str
    ) -> Iterator[Document]:
        """Passes on the documents that meet every rule, their lines cleaned; counts the others."""
        from kogata.engine.pool import paired
        from kogata.engine.saved import through_and_saved

        # What was learned, and a plug-in's rules, are known to this process alone.
        ours = all(module.__name__.startswith("kogata.") for _, module, _ in self._modules())
        here = judge.learned is not None or not ours
        count = self.processes if isinstance(self.processes, int) and not here else 1
        if (bench := account.bench) is None:
            found = paired(documents, judge, count, batch=BATCH)
        else:
            spread = bench.spread if self.processes == "ray" and not here else None
            place = bench.checkpoints / f"{account.label}-{what}"
            found = through_and_saved(documents, judge, count, place, spread, BATCH)
        for document, verdict in found:
            kept = verdict.settle(document, account)
            if kept is not None:
                yield kept

    def _learned(
        self, documents: Iterable[Document], name: str, learn: Any, settings: Any, account: Account
    ) -> Iterator[Document]:
        """Holds the first training documents, lets a family learn from them, and judges all."""
        from itertools import chain

        from kogata.engine.filters._judge import Judge
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
        yield from self._judged(chain(_emptied(sample), stream), Judge(learned=family), account, name)

    def _modules(self) -> list[tuple[str, Any, Any]]:
        """Lists the families asked for: name, variant, settings; the cheap ones first."""
        from kogata.core.registry import registry

        chosen = self.rules.chosen.items() if self.rules else ()
        found = [(name, registry.variant("engine.filters", name), settings) for name, settings in chosen]
        return sorted(found, key=lambda item: item[1].SECONDS_PER_BYTE)

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


def _emptied(documents: list[Document]) -> Iterator[Document]:
    """Yields the documents of a list and lets go of each."""
    documents.reverse()
    while documents:
        yield documents.pop()
