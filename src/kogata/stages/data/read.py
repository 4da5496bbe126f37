"""data.read: text files become a corpus, tables of questions and answers become examples; with splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Document, Kind
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Bench, Facts, Given, InputPath, Resolved, Share, Stage

if TYPE_CHECKING:
    from kogata.engine.example_reading import Reading
    from kogata.engine.files import InputFile
    from kogata.engine.readers._common import ReadOptions
    from kogata.engine.splits import Shares
    from kogata.engine.survey import Survey

# CPU time on one core of a 2-core EPYC (Zen 3), over 30 MB of novels, 15 MB of manuals in JSON lines and
# 12 MB of Japanese stories.
READ_BYTES_PER_SECOND = 130e6
UNPACK_BYTES_PER_SECOND = 200e6
SECONDS_PER_FILE = 1e-3
"""Opening a file and telling its encoding."""
BASE_BYTES = 75 * 2**20
"""Peak of a process that reads little; a share by content holds the look-ahead besides."""
EXAMPLE_SECONDS = 3e-5
EXAMPLE_BYTES_PER_SECOND = 6e6
"""Of examples, per row and per byte: reading, splitting, checking and writing them."""
EXAMPLE_MEMORY = 8.0
"""Of examples, which are held in memory, by bytes of text."""


class Tail(BaseModel):
    """The end of every document is set apart: the last tenth with `{tail: 0.1}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tail: float = Field(gt=0, le=0.5, description="share of each document's characters, from its end")


Role = Literal[
    "text", "id", "prompt", "input", "completion", "system", "messages", "tools", "text_pair", "label",
    "tokens", "tags", "spans",
]  # fmt: skip

Apart = float | Tail | InputPath | list[InputPath] | None


class Read(Stage):
    """Reads files of any common format and encoding, and sets some of it apart to judge by.

    Reads txt, md, jsonl, json, csv, tsv, parquet, xlsx and conll, plain or as gz or zst: a file, a folder, a
    pattern, a list of them, or `hub:owner/name` when the `datasets` library is installed. Text is told from
    binary, its encoding found (UTF-8, UTF-16, Shift_JIS, EUC-JP, Western and more), and nothing is dropped
    silently: every file or row left out is counted with its reason.

    Text becomes a corpus, to train a model from nothing. Rows with a prompt and a completion, a question and
    an answer, an instruction with input and output, chat messages (with tools), a text and its label, tokens
    and tags, or a text and marked spans become examples, to fine-tune on. Headers are known by their usual
    names, Japanese ones too; `columns` names others. A table of `text` and labels may be either: with `kind:
    examples`, or with the label's column named, it is examples. Examples are held out by the hash of what is
    asked, at least 20 rows where that is no more than a tenth; rows with one question, or of one `group`,
    stay in one split, and of every label a row is trained on. `kogata check` looks at rows without training.

    Held-out text is chosen by content, never by seed, so recipes that differ later are judged on the same
    text. With fewer than about five whole documents for a share, long documents are cut into parts at
    paragraphs and parts are held out; the facts say so. Then the held-out text is of the same works as the
    training text: for a stricter judgement name other files (`heldout: other/*.txt`).

    Pays when: always the first stage.
    Hurts when: documents copy each other in part: then held-out text is partly known from training.
    Cost: about 1 s for 60 MB of text on one core; memory 0.3 GB, whatever the size.
    Source: Kogata; splitting by content hash as in common practice.
    Measured here: not yet measured.
    """

    makes = Kind.CORPUS
    version = 2

    path: InputPath | list[InputPath] = Field(
        description="file, folder, pattern such as novels/*.txt.gz, hub:owner/name, or a list of these"
    )
    kind: Literal["auto", "corpus", "examples"] = Field(
        default="auto",
        description="what comes out: corpus (text) or examples (rows to fine-tune on); auto: by the columns",
    )
    columns: dict[Role, str] = Field(
        default_factory=dict,
        description="for tables: which column holds what, for example {text: 本文} or "
        "{prompt: 問い合わせ, completion: 回答}",
    )
    numbers: list[str] = Field(
        default_factory=list,
        description="corpus: columns of numbers kept with each document, for a curriculum by column",
    )
    system: str | None = Field(
        default=None,
        min_length=1,
        description="examples: the system message of rows that bring none",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="examples: the column that names a group (a ticket, a customer) whose rows share a split",
    )
    split_on: str | None = Field(
        default=None,
        min_length=1,
        description="cut text files into documents at `line`, `blank_line` or a text such as <|endoftext|>; "
        "by default a text file is one document",
    )
    encoding: str = Field(default="auto", description="auto, or a name such as utf-8, cp932, euc_jp, cp1252")
    heldout: Apart = Field(
        default=0.02,
        description="text that is never trained on: a share (0.02), the end of each document ({tail: 0.1}), "
        "or a path to other files; 0 for none",
    )
    test: Apart = Field(
        default=None, description="a second part set apart, for the last judgement: like heldout"
    )

    @field_validator("path", "heldout", "test")
    @classmethod
    def _sensible(cls, value: Any) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("found an empty list; give at least one path")
        if isinstance(value, float) and not 0 <= value <= 0.5:
            raise ValueError(
                f"found {value:g}; a share is a number from 0 to 0.5, for example 0.02 for two per cent"
            )
        if isinstance(value, str) and value.strip().endswith("%"):
            raise ValueError(f"found {value!r}; a share is a number from 0 to 0.5, for example 0.02")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        from kogata.engine.encodings import known_encoding

        if not known_encoding(value):
            raise ValueError(
                f"unknown encoding {value!r}; expected auto, utf-8, cp932, euc_jp, utf-16, cp1252 …"
            )
        return value

    @model_validator(mode="after")
    def _of_its_kind(self) -> Read:
        asked = [f"columns.{role}" for role in self.columns if role not in ("text", "id")]
        asked += [name for name in ("system", "group") if getattr(self, name) is not None]
        if self.kind == "corpus" and asked:
            raise ValueError(f"{asked[0]} has no meaning for a corpus; with it, kind is examples")
        examples = self.kind == "examples" or (self.kind == "auto" and bool(asked))
        if examples and (isinstance(self.heldout, Tail) or isinstance(self.test, Tail)):
            raise ValueError("a tail is of text; of examples, hold out a share (0.1) or other files")
        if examples and self.numbers:
            raise ValueError("`numbers` has no meaning for examples; with it, kind is corpus")
        return self

    def made_kind(self, facts: Mapping[str, Facts | None]) -> Kind:
        """Says whether text or rows of examples are there; looks into the files where the recipe does not."""
        if self.kind != "auto":
            return Kind(self.kind)
        try:
            return Kind.EXAMPLES if self._found()[0] else Kind.CORPUS
        except DataError:
            # Wiring asks first; `resolve` meets the same error and says it in its place.
            return Kind.CORPUS

    def streams(self) -> bool:
        """Says whether documents pass through: those of a corpus do."""
        return self.made_kind({}) == Kind.CORPUS

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Says what is made; leaves the encoding `auto`: it is found file by file."""
        reasons: dict[str, str] = {}
        changes: dict[str, Any] = {}
        if self.kind == "auto":
            examples, why = self._found()
            changes["kind"], reasons["kind"] = ("examples" if examples else "corpus"), why
        if self.encoding == "auto":
            reasons["encoding"] = "auto: found file by file (UTF-8 first, then the most plausible)"
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Estimates from file sizes and the beginnings of a few files; of examples, from the rows."""
        if self.made_kind({}) == Kind.EXAMPLES:
            return self._forecast_examples(machine)
        splits: dict[str, dict[str, int]] = {}
        seconds = 0.0
        size = 0
        language = "und"
        shares = self._shares()
        for name, paths in (("test", self.test), ("heldout", self.heldout), ("train", self.path)):
            if not isinstance(paths, str | list):
                continue
            found = self._survey(paths)
            seconds += _seconds(found)
            size += found.bytes
            if name == "train":
                language = found.language
                apart = {
                    "test": shares.test + shares.test_tail,
                    "heldout": shares.heldout + shares.heldout_tail,
                }
                splits |= {part: found.part(portion) for part, portion in apart.items() if portion}
                splits["train"] = found.part(1 - sum(apart.values()))
            else:
                splits[name] = found.part(1.0)
        from kogata.engine.sealing import SIZE_ON_DISK, seal_seconds

        sealing = machine.paced(seal_seconds(size))
        seconds = machine.paced(seconds) + sealing
        named = not shares.by_content
        order = [name for name in ("train", "heldout", "test") if name in splits]
        return Forecast(
            facts={"splits": {name: splits[name] for name in order}, "language_hint": language},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=BASE_BYTES + (min(size, 2**25) if named else round(2.3 * min(size, 2**26))),
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round(SIZE_ON_DISK * size),
            seal_seconds=sealing,
        )

    def _forecast_examples(self, machine: Machine) -> Forecast:
        from kogata.engine.example_plan import plan_examples
        from kogata.engine.sealing import SIZE_ON_DISK

        planned = plan_examples(self.reading())
        size = sum(split["bytes"] for split in planned.facts["splits"].values())
        rows = sum(split["examples"] for split in planned.facts["splits"].values())
        seconds = machine.paced(0.5 + rows * EXAMPLE_SECONDS + size / EXAMPLE_BYTES_PER_SECOND)
        return Forecast(
            facts=planned.facts,
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=BASE_BYTES + round(EXAMPLE_MEMORY * size),
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round(SIZE_ON_DISK * size),
        )

    def run(self, given: Given, bench: Bench) -> Facts:
        """Reads, checks and writes examples; says what was mapped and what could not be read."""
        from kogata.engine.check._common import Examined, run_checks
        from kogata.engine.example_reading import gather
        from kogata.engine.examples import ExamplesWriter

        found = gather(self.reading())
        for line in found.lines():
            bench.log(line)
        writer = ExamplesWriter(bench.out)
        try:
            for split, example in found.examples:
                writer.write(example, split)
        finally:
            facts = writer.close()
        checks = run_checks(Examined.of(found), cheap=True)
        for finding in checks:
            if finding.level != "note" and finding.check != "unreadable":
                bench.log(f"check: {finding.what}")
        facts["columns"] = found.mapped()
        facts["checks"] = {finding.name: finding.what for finding in checks}
        facts["accounts"] = {bench.label: found.account()}
        return facts

    def reading(self) -> Reading:
        """States what is read, and how, as the engine takes it."""
        from kogata.engine.example_reading import Reading

        return Reading(
            path=self.path,
            heldout=cast("float | str | list[str]", self.heldout or 0.0),
            test=cast("float | str | list[str]", self.test or 0.0),
            columns={**self.columns},
            system=self.system,
            group=self.group,
            encoding=self.encoding,
            split_on=self.split_on,
        )

    def _found(self) -> tuple[bool, str]:
        from kogata.engine.example_reading import finds_examples

        if isinstance(self.heldout, Tail) or isinstance(self.test, Tail):
            return False, "a tail is held out, which only text has"
        return finds_examples(self.reading())

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """Yields the documents of the files; test and held-out files first."""
        from kogata.engine.splits import split

        taken: set[Any] = set()
        for name, paths in (("test", self.test), ("heldout", self.heldout)):
            if isinstance(paths, str | list):
                kept = account.kept
                for document in self._documents(paths, account, taken):
                    yield account.keep(replace(document, split=name))
                if account.kept == kept:
                    raise _nothing(account, f"nothing to read for {name}", paths)
        kept = account.kept
        where = self.path if isinstance(self.path, str) else ", ".join(self.path)
        found = self._documents(self.path, account, taken)
        for document in split(found, self._shares(), account, where=where):
            yield account.keep(document)
        if account.kept == kept:
            raise _nothing(account, "an empty corpus: nothing to train on", self.path)

    def _documents(self, paths: str | list[str], account: Account, taken: set[Any]) -> Iterator[Document]:
        from kogata.engine.hub import PREFIX, read_hub
        from kogata.engine.text import documents_of

        options = self._options()
        for path in [paths] if isinstance(paths, str) else paths:
            if path.startswith(PREFIX):
                yield from read_hub(path, options, account)
                continue
            files, named = _files(path)
            new = [file for file in files if file.path.resolve() not in taken]
            if len(new) < len(files):
                # A file that is held out by name is not trained on, though the pattern matches it too.
                left_out = account.extra.get("files_left_out", 0) + len(files) - len(new)
                account.extra["files_left_out"] = left_out
            taken.update(file.path.resolve() for file in new)
            yield from documents_of(new, options, account, named=named)

    def _options(self) -> ReadOptions:
        from kogata.engine.readers._common import ReadOptions

        return ReadOptions(
            encoding=self.encoding,
            columns={role: name for role, name in self.columns.items()},
            split_on=self.split_on,
            numbers=tuple(self.numbers),
        )

    def _shares(self) -> Shares:
        from kogata.engine.splits import Shares

        return Shares(
            heldout=self.heldout if isinstance(self.heldout, float) else 0.0,
            test=self.test if isinstance(self.test, float) else 0.0,
            heldout_tail=self.heldout.tail if isinstance(self.heldout, Tail) else 0.0,
            test_tail=self.test.tail if isinstance(self.test, Tail) else 0.0,
        )

    def _survey(self, paths: str | list[str]) -> Survey:
        from kogata.engine.hub import PREFIX, hub_size
        from kogata.engine.survey import Survey, merged, survey

        found: list[Survey] = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path.startswith(PREFIX):
                documents, size = hub_size(path) or (1, 0)
                found.append(Survey.of_size(documents, size))
                continue
            files, named = _files(path)
            found.append(survey(files, self._options(), named=named))
        return merged(found)


def _files(path: str) -> tuple[list[InputFile], bool]:
    """Lists the files of one path, and whether the user named this very file."""
    from pathlib import Path

    from kogata.engine.text import input_files

    return input_files(path), Path(path).is_file()


def _nothing(account: Account, what: str, paths: str | list[str]) -> DataError:
    from kogata.engine.text import nothing_read

    return nothing_read(account, what, paths, "document", "files")


def _seconds(found: Survey) -> float:
    seconds = found.bytes / READ_BYTES_PER_SECOND
    if found.raw_bytes > found.disk_bytes:
        seconds += found.raw_bytes / UNPACK_BYTES_PER_SECOND
    return 0.05 + found.files * SECONDS_PER_FILE + seconds
