"""Text: documents from files of any format, and the corpus artifact they are written to and read from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kogata.core.artifact import SPLITS, Document
from kogata.core.errors import DataError
from kogata.core.paths import expand_input
from kogata.core.registry import registry
from kogata.core.stage import Account, Facts
from kogata.engine.encodings import mend
from kogata.engine.files import COMPRESSED, InputFile, Unreadable
from kogata.engine.readers._common import LONGEST, ReadOptions
from kogata.engine.readers.txt import cut_at
from kogata.engine.shards import SHARD_BYTES, ShardWriter, damaged, read_rows

GROUP = "group"
"""Where in a document's `meta` the name of its source stands, in a mixture."""
UNSPACED = ("ja", "zh", "th", "lo", "my", "km")
"""Languages that set no spaces between words."""
UNDECODABLE = 1e-3
"""A document with a larger share of undecodable bytes is skipped, one with a smaller is mended."""
HEARD = 20_000
"""Characters per split kept to guess the language by."""


def readers() -> dict[str, ModuleType]:
    """Gives the reader of each suffix."""
    found: dict[str, ModuleType] = {}
    for name in registry.variant_names("engine.readers"):
        reader = registry.variant("engine.readers", name)
        for suffix in reader.SUFFIXES:
            found[suffix] = reader
    return found


def input_files(paths: str | Sequence[str], known: Collection[str] | None = None) -> list[InputFile]:
    """Lists the files that paths name, in a fixed order, each once.

    Args:
        paths: files, folders or patterns.
        known: suffixes of the formats to take; those of the readers of text, if not given.

    Raises:
        DataError: a path names nothing, or a named file is of no known format.
    """
    known = readers() if known is None else known
    suffixes = tuple(suffix + packed for suffix in known for packed in ("", *COMPRESSED))
    found: dict[Path, InputFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        place = Path(path)
        for item in expand_input(path, suffixes):
            name = item.relative_to(place).as_posix() if place.is_dir() else item.name
            file = InputFile(item, name)
            if not place.is_dir() and file.suffix not in known:
                raise DataError(
                    "a file of no known format",
                    where=str(item),
                    found=f"the ending {file.suffix or 'none'!r}",
                    expected=f"one of {', '.join(known)}, plain or with .gz or .zst",
                    remedy="rename it (plain text is .txt, a page .html), or narrow the pattern",
                )
            found.setdefault(item.resolve(), file)
    names = Counter(file.name for file in found.values())
    return [
        file if names[file.name] == 1 else InputFile(file.path, f"{file.path.parent.name}/{file.name}")
        for file in found.values()
    ]


def documents_of(
    files: Iterable[InputFile], options: ReadOptions, account: Account, *, named: bool
) -> Iterator[Document]:
    """Yields the documents of files, mended; what cannot be read is counted with its reason.

    Args:
        files: what to read.
        options: encoding, columns, cuts.
        account: where documents and reasons are counted.
        named: the user named these very files: one that cannot be read is an error, not a reason.
    """
    known = readers()
    for file in files:
        try:
            for document in known[file.suffix].read(file, options, account):
                account.read += 1
                yield from _mended(document, account)
        except Unreadable as error:
            if named:
                raise
            account.reject(error.reason, Document(file.name, "", source=file.name), error.found)


def _mended(document: Document, account: Account) -> Iterator[Document]:
    text, mends = mend(document.text)
    if not text.strip():
        account.reject("empty", document)
        return
    if mends.undecodable > UNDECODABLE * len(text):
        account.reject(
            "undecodable bytes", Document(document.id, text, source=document.source), mends.undecodable
        )
        _count(account, undecodable_bytes=mends.undecodable)
        return
    if mends.undecodable or mends.surrogates or mends.zeros:
        _count(
            account,
            mended_documents=1,
            undecodable_bytes=mends.undecodable,
            lone_surrogates=mends.surrogates,
            nul_characters=mends.zeros,
        )
    if len(text) <= LONGEST:
        yield Document(document.id, text, source=document.source, meta=document.meta)
        return
    number = 0
    while text:
        at = cut_at(text, LONGEST) if len(text) > LONGEST else len(text)
        number += 1
        yield Document(f"{document.id}:{number}", text[:at], source=document.source, meta=document.meta)
        text = text[at:]
    _count(account, cut_documents=1)


def _count(account: Account, **counts: int) -> None:
    for name, count in counts.items():
        if count:
            account.extra[name] = account.extra.get(name, 0) + count


class Tally:
    """Counts what goes into the splits of an artifact and listens for its language.

    Args:
        unit: what is counted: `documents` or `examples`.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._counts: dict[str, dict[str, int]] = {}
        self._heard: dict[str, list[str]] = {}
        self._heard_length: Counter[str] = Counter()

    def add(self, split: str, text: str) -> None:
        """Counts one text of a split."""
        counts = self._counts.setdefault(split, {self._unit: 0, "bytes": 0, "characters": 0})
        counts[self._unit] += 1
        counts["bytes"] += utf8_length(text)
        counts["characters"] += len(text)
        # A little of every text until there is enough, so that one odd beginning decides nothing.
        if self._heard_length[split] < HEARD:
            piece = text[:2000]
            self._heard.setdefault(split, []).append(piece)
            self._heard_length[split] += len(piece)

    def facts(self) -> Facts:
        """Gives `splits` and `language_hint`."""
        heard = "\n".join(piece for split in SPLITS for piece in self._heard.get(split, ()))
        return {
            "splits": {split: self._counts[split] for split in SPLITS if split in self._counts},
            "language_hint": language_hint(heard),
        }


class CorpusWriter:
    """Writes documents to a corpus folder: shards of JSON lines per split, the same bytes every time."""

    def __init__(self, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._shards = ShardWriter(out, shard_bytes)
        self._tally = Tally("documents")

    def write(self, document: Document) -> None:
        """Appends a document to its split."""
        row: dict[str, Any] = {"id": document.id, "text": document.text, "source": document.source}
        if document.meta:
            row["meta"] = document.meta
        self._shards.write(document.split, row)
        self._tally.add(document.split, document.text)

    def close(self) -> Facts:
        """Finishes the shards and gives the corpus's facts."""
        self._shards.close()
        return self._tally.facts()


def seal_documents(documents: Iterable[Document], out: Path) -> Facts:
    """Writes documents as a corpus under `out` and returns its facts."""
    writer = CorpusWriter(out)
    try:
        for document in documents:
            writer.write(document)
    except BaseException:
        writer.close()
        raise
    return writer.close()


def read_corpus(path: Path, split: str) -> Iterator[Document]:
    """Yields the documents of one split of a corpus, in order.

    Raises:
        DataError: a row is not as `CorpusWriter` wrote it.
    """
    for shard in sorted(path.glob(f"{split}-*.jsonl.zst")):
        yield from read_shard(shard, split)


def read_shard(shard: Path, split: str) -> Iterator[Document]:
    """Yields the documents of one shard of a corpus, in order; raises as `read_corpus` does."""
    for where, row in read_rows(shard, "corpus"):
        try:
            yield Document(row["id"], row["text"], split, row.get("source", ""), row.get("meta", {}))
        except KeyError as error:
            raise damaged("corpus", where, error) from None


def read_documents(path: Path) -> Iterator[Document]:
    """Yields every document of a corpus: test and held-out first, so that training copies are known."""
    for split in reversed(SPLITS):
        yield from read_corpus(path, split)


def utf8_length(text: str) -> int:
    """Gives the length of a text in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


_COMMON = {
    "en": "the of and to in that is was he for it with as his on be",
    "de": "der die und das ist nicht ein zu den mit von sich auf für dem",
    "fr": "le la les des et est que une dans pour qui pas sur au du",
    "es": "el los las que del se por con para una su no como más y",
    "it": "il che di della non per una sono con gli del più nel le si",
    "pt": "que não uma para com os do da em por mais como das dos se",
    "nl": "de het een en van dat niet zijn voor met aan op te er als",
}


def language_hint(text: str) -> str:
    """Guesses the language of a text from its script and commonest words: `en`, `ja`, `zh` …, else `und`."""
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return "und"
    kana = sum("ぁ" <= char <= "ヿ" for char in letters)
    han = sum("一" <= char <= "鿿" for char in letters)
    hangul = sum("가" <= char <= "힣" for char in letters)
    cyrillic = sum("Ѐ" <= char <= "ӿ" for char in letters)
    total = len(letters)
    if kana > 0.1 * total:
        return "ja"
    if han > 0.3 * total:
        return "zh"
    if hangul > 0.3 * total:
        return "ko"
    if cyrillic > 0.5 * total:
        return "ru"
    words = Counter(text.lower().split())
    every = sum(words.values())
    scores = {
        language: sum(words[word] for word in common.split()) / every for language, common in _COMMON.items()
    }
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] > 0.1 else "und"


_UNSPACED = re.compile("[ぁ-ヿ一-鿿\u0e00-\u0fffက-႟ក-៿]")


def spaced(text: str) -> bool:
    """Says whether words are set apart by spaces (not so in Japanese, Chinese, Thai …)."""
    sample = text[:5000]
    if sample.isascii():
        return True
    if sample.count("፡") > len(sample) / 30:
        return False
    return len(_UNSPACED.findall(sample)) <= 0.2 * sum(map(str.isalpha, sample))


def nothing_read(account: Account, what: str, paths: str | list[str], unit: str, kind: str) -> DataError:
    """Says that no text was found, where, and why each document was left out.

    Args:
        account: of what was read.
        what: the claim.
        paths: as the recipe names them.
        unit: of what one at least was expected (`page`).
        kind: of what should have been given (`archives or pages`).
    """
    return DataError(
        what,
        where=paths if isinstance(paths, str) else ", ".join(paths),
        found=reasons_table(account),
        expected=f"at least one {unit} with text",
        remedy=f"give {kind} with text in them; the reasons above say what was left out",
    )


def reasons_table(account: Account) -> str:
    """Lists why documents were left out: counts, reasons, the first example of each."""
    rows = []
    for reason, count in sorted(account.reasons.items(), key=lambda item: -item[1]):
        shown = account.examples.get(reason) or [{}]
        example = shown[0]
        value = "" if example.get("value") is None else f" ({example['value']})"
        rows.append(f"{count} × {reason}, first {example.get('id', '–')}{value}")
    return "; ".join(rows) or "no documents at all"
