"""data.extract: web pages become a corpus with splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from kogata.core.amounts import Bytes, Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Facts, InputPath, Resolved, Share, Stage
from kogata.core.variants import Choice

if TYPE_CHECKING:
    from pathlib import Path

    from kogata.engine.files import InputFile
    from kogata.engine.web.page import Page
    from kogata.engine.web.survey import WebSurvey

IDENTIFY_SECONDS = 5e-4
"""Telling a page's language."""
UNPACK_BYTES_PER_SECOND = 150e6
START_SECONDS = 0.8
"""Loading the language model and the extractor."""
BASE_BYTES = 130 * 2**20
"""Peak of a process that converts pages one by one."""
PROCESS_BYTES = 120 * 2**20
"""… and of each further process."""
RAY_SECONDS = 8.0
"""Starting a Ray of this machine's own."""
RAY_BYTES = 560 * 2**20
"""… and what its own processes hold."""
SIZE_ON_DISK = 0.4
KEPT_ON_DISK = 0.45
"""Of the text, until the corpus is sealed: what a kill must not cost."""
MOST_PROCESSES = 8
"""One process reads for all; more than this wait for it."""


class Extractor(Choice, folder="engine.extract"):
    """How the main text of a page is found."""


Apart = float | InputPath | list[InputPath] | None


class Extract(Stage):
    """Reads web pages from WARC and WET archives or HTML files as a corpus, and sets held-out text apart.

    Of each page the main text is kept, with its URL, the date it was fetched and its language as the
    document's meta. The charset is found page by page (UTF-8, Shift_JIS, EUC-JP, gb2312, windows-1251), what
    the server and the page say of it believed where it is true. What is no page is counted with its reason:
    other statuses and types, pages too large, cut-off records, damaged data, which reading goes on behind.

    With several processes one reads and the others convert; the corpus is the same, to the byte. Held-out
    pages are chosen by content, as data.read does. What a stopped or killed run converted is kept, 200 pages
    at a time; started again it only reads them. A page on which the extractor hangs is left out, counted.

    Pays when: the text is web pages; first in the recipe, before data.filter and data.dedup.
    Hurts when: pages are tables, forms or galleries: little of them is running text.
    Cost: about 3 ms a page on one core, 20 ms with `extractor: careful`.
    Source: FastWARC and Resiliparse (Bevendorff et al. 2018, 2021), trafilatura (Barbaresi 2021), py3langid
        (Lui and Baldwin 2012); the order of steps is that of FineWeb (Penedo et al. 2024).
    Measured here: F1 on news and blog pages 0.927 [extract.json:articles.extractors.fast.f1:.3f] with fast,
        0.962 [extract.json:articles.extractors.careful.f1:.3f] with careful; of the Universal Declaration in
        80 [extract.json:languages.covered:.0f] languages, 78 [extract.json:languages.right:.0f] are told
        right. Pages to deduplicated text on one core, beside datatrove, each by its defaults: 11.8
        [extract-speed.json:parts.pages.median_ratio:.1f] times its documents a second.
    """

    makes = Kind.CORPUS
    packages = ("fastwarc", "resiliparse", "trafilatura", "py3langid")
    cost_only = frozenset({"processes"})

    path: InputPath | list[InputPath] = Field(
        description="WARC, WET or HTML, plain, .gz or .zst: file, folder, pattern, or a list of these"
    )
    extractor: Extractor = Field(
        default_factory=lambda: Extractor.of("fast"),
        description="how the main text is found: fast (Resiliparse) or careful (trafilatura)",
    )
    languages: list[str] | None = Field(
        default=None, min_length=1, description="languages to keep, for example [en, ja]; by default all"
    )
    min_confidence: float = Field(
        default=0.65, ge=0, le=1, description="probability of the language, at least; only with languages"
    )
    max_page: Bytes = Field(default=2_000_000, description="bytes of the largest page that is read")
    page_seconds: float = Field(
        default=20.0, gt=0, le=3600, description="CPU seconds a page may take; then it is left out"
    )
    unique_urls: bool = Field(default=True, description="of pages with one URL only the first is kept")
    processes: int | Literal["auto", "ray"] = Field(
        default="auto",
        description="processes that convert pages; auto takes one for each core, ray those of the cluster "
        "that RAY_ADDRESS names, or of a Ray on this machine",
    )
    heldout: Apart = Field(
        default=0.02,
        description="pages that are never trained on: a share (0.02), or other files; 0 for none",
    )
    test: Apart = Field(default=None, description="a second part set apart, for the last judgement")

    @field_validator("path", "heldout", "test")
    @classmethod
    def _sensible(cls, value: Any) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("found an empty list; give at least one path")
        if isinstance(value, float) and not 0 <= value <= 0.5:
            raise ValueError(f"found {value:g}; a share is a number from 0 to 0.5, for example 0.02")
        return value

    @field_validator("languages")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        from kogata.engine.language import check_languages

        if value is not None:
            check_languages(value, "data.extract.languages")
        return value

    @field_validator("max_page", "processes")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if value not in ("auto", "ray") and value < 1:
            raise ValueError(f"found {value}; at least 1")
        return value

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the number of processes by cores and memory; the corpus does not depend on it."""
        if self.processes != "auto":
            return Resolved(stage=self)
        memory = share.memory_bytes or machine.memory_bytes
        fitting = max(1, (memory - BASE_BYTES) // (2 * PROCESS_BYTES)) if memory else MOST_PROCESSES
        count = min(machine.cores, fitting, MOST_PROCESSES)
        each_core = f"one for each of {machine.cores} cores"
        bound = {fitting: "as many as the memory holds", machine.cores: each_core}
        why = f"{count}: {bound.get(count, 'more would wait for the one that reads')}"
        return Resolved(stage=self.model_copy(update={"processes": count}), reasons={"processes": why})

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Estimates from file sizes and the first pages of a few files."""
        from kogata.engine.sealing import seal_seconds

        splits: dict[str, dict[str, int]] = {}
        language = "und"
        work = start = 0.0
        pages = size = 0
        apart = {"test": self.test, "heldout": self.heldout}
        shares = {name: portion for name, portion in apart.items() if isinstance(portion, float) and portion}
        for name, paths in (*apart.items(), ("train", self.path)):
            if not isinstance(paths, str | list):
                continue
            found = self._survey(paths)
            work += self._seconds(found)
            start += found.text.raw_bytes / UNPACK_BYTES_PER_SECOND
            size += found.text.bytes
            pages += found.pages
            if name == "train":
                language = found.text.language
                splits |= {part: found.text.part(portion) for part, portion in shares.items()}
                splits["train"] = found.text.part(1 - sum(shares.values()))
            else:
                splits[name] = found.text.part(1.0)
        ray = self.processes == "ray"
        count = self.processes if isinstance(self.processes, int) else machine.cores if ray else 1
        sealing = machine.paced(seal_seconds(size))
        seconds = machine.paced(START_SECONDS + RAY_SECONDS * ray + start + work / count) + sealing
        cpu = machine.paced(START_SECONDS * count + start + work) + sealing
        peak = BASE_BYTES + (PROCESS_BYTES * count if count > 1 else 0) + RAY_BYTES * ray + 100 * pages
        peak += round(2.3 * min(size, 2**26)) if shares else min(size, 2**25)
        return Forecast(
            facts={
                "splits": {name: splits[name] for name in ("train", "heldout", "test") if name in splits},
                "language_hint": language,
            },
            cost=Cost(
                seconds=seconds,
                cpu_seconds=cpu,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round((SIZE_ON_DISK + KEPT_ON_DISK) * size),
            seal_seconds=sealing,
        )

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Yields the pages' main texts; test and held-out files first."""
        from kogata.engine.splits import Shares, split

        seen: set[int] | None = set() if self.unique_urls else None
        taken: set[Any] = set()
        for name, paths in (("test", self.test), ("heldout", self.heldout)):
            if isinstance(paths, str | list):
                kept = account.kept
                for document in self._documents(paths, name, account, taken, seen):
                    yield account.keep(replace(document, split=name))
                if account.kept == kept:
                    raise _nothing(account, f"no page to read for {name}", paths)
        shares = Shares(
            heldout=self.heldout if isinstance(self.heldout, float) else 0.0,
            test=self.test if isinstance(self.test, float) else 0.0,
        )
        kept = account.kept
        where = self.path if isinstance(self.path, str) else ", ".join(self.path)
        found = self._documents(self.path, "train", account, taken, seen)
        for document in split(found, shares, account, where=where):
            yield account.keep(document)
        if account.kept == kept:
            raise _nothing(account, "an empty corpus: no page to train on", self.path)

    def _documents(
        self,
        paths: str | list[str],
        split: str,
        account: Account,
        taken: set[Any],
        seen: set[int] | None,
    ) -> Iterator[Document]:
        from kogata.engine.pool import through
        from kogata.engine.saved import through_and_saved
        from kogata.engine.web.convert import Converter

        converter = Converter(
            extractor=self.extractor.name,
            settings=self.extractor.settings,
            languages=frozenset(self.languages) if self.languages else None,
            min_confidence=self.min_confidence,
            page_seconds=self.page_seconds,
        )
        count = self.processes if isinstance(self.processes, int) else 1
        pages = self._pages(paths, account, taken, seen)
        if (bench := account.bench) is None:
            found: Iterable[Any] = through(pages, converter, count)
        else:
            spread = bench.spread if self.processes == "ray" else None
            place = bench.checkpoints / f"pages-{split}"
            found = (outcome for _, outcome in through_and_saved(pages, converter, count, place, spread))
        for outcome in found:
            document = outcome.settle(account)
            if document is not None:
                yield document

    def _pages(
        self, paths: str | list[str], account: Account, taken: set[Any], seen: set[int] | None
    ) -> Iterator[Page]:
        from kogata.engine.web.pages import pages_of

        files, given = _files(paths)
        for file in files:
            place = file.path.resolve()
            # A file that is held out by name is not trained on, though the pattern matches it too.
            if place not in taken:
                taken.add(place)
                yield from pages_of([file], self.max_page, account, named=place in given, seen=seen)

    def _seconds(self, found: WebSurvey) -> float:
        variant = self.extractor.variant
        each = variant.SECONDS_PER_PAGE + IDENTIFY_SECONDS
        return found.pages * each + found.page_bytes * variant.SECONDS_PER_BYTE

    def _survey(self, paths: str | list[str]) -> WebSurvey:
        from kogata.engine.survey import merged
        from kogata.engine.web.survey import WebSurvey, survey_pages

        parts = []
        for path in [paths] if isinstance(paths, str) else paths:
            files, given = _files(path)
            parts.append(survey_pages(files, self.max_page, named=bool(given)))
        return WebSurvey(
            text=merged([part.text for part in parts]),
            pages=sum(part.pages for part in parts),
            page_bytes=sum(part.page_bytes for part in parts),
        )


def _files(paths: str | list[str]) -> tuple[list[InputFile], set[Path]]:
    """Lists the files that paths name, and which of them were named one by one."""
    from pathlib import Path

    from kogata.engine.text import input_files
    from kogata.engine.web.page import SUFFIXES

    places = map(Path, [paths] if isinstance(paths, str) else paths)
    return input_files(paths, SUFFIXES), {place.resolve() for place in places if place.is_file()}


def _nothing(account: Account, what: str, paths: str | list[str]) -> DataError:
    from kogata.engine.text import nothing_read

    return nothing_read(account, what, paths, "page", "archives or pages")
