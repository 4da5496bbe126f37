"""What the readers share: options, lines of a stream, which column holds the text."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kogata.core.errors import DataError
from kogata.core.registry import suggest
from kogata.core.stage import Account
from kogata.engine.encodings import Decoder
from kogata.engine.files import InputFile, refuse_binary

LONGEST = 8 * 2**20
"""Characters of the longest document or line held in memory; what is longer is cut or rejected."""
LOOK = 2**16
"""Bytes looked at for the plan and to tell text from binary."""
ROWS_LOOK = 2**20
"""Bytes looked at to count a table's rows."""
TEXT_NAMES = (
    "text", "content", "contents", "body", "document", "article", "passage", "story", "raw_content",
    "本文", "テキスト", "文章", "内容",
)  # fmt: skip
"""Columns taken to hold the text, the first that is there."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files are to be read."""

    encoding: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role (`text`, `id`) → the column's name."""
    split_on: str | None = None
    """Where a text file is cut into documents: `line`, `blank_line` or any text."""
    numbers: tuple[str, ...] = ()
    """Columns of numbers that go along in the documents' `meta`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the beginning of a file says of the whole."""

    read: int
    """Bytes looked at, decompressed."""
    documents: float
    """Documents in them; 0 when a whole file is one document."""
    bytes: int
    """UTF-8 bytes of their text."""
    characters: int
    text: str = ""
    """Some of it, to guess the language by."""
    rows: int | None = None
    """Documents in the whole file, where its format says so."""
    whole_bytes: int | None = None
    """Bytes of text in the whole file, where its format says so."""


def sample_of(texts: Sequence[str], read: int) -> Sample:
    """Makes a sample of the texts that so many bytes gave."""
    joined = "\n".join(texts)
    return Sample(
        read=max(1, read),
        documents=len(texts),
        bytes=len(joined.encode("utf-8", "surrogatepass")),
        characters=len(joined),
        text=joined,
    )


def decoder_of(file: InputFile, options: ReadOptions) -> Decoder:
    """Opens a text file for decoding, refusing a binary one."""
    stream = file.open()
    try:
        head = stream.peek(LOOK)[:LOOK]  # type: ignore[attr-defined]
        refuse_binary(head, file)
    except BaseException:
        stream.close()
        raise
    return Decoder(stream, options.encoding)


def head_of(file: InputFile, options: ReadOptions, look: int) -> tuple[str, int]:
    """Gives the decoded beginning of a text file and how many bytes it took."""
    with file.open() as stream:
        raw = stream.read(look)
    refuse_binary(raw, file)
    text = "".join(Decoder(io.BytesIO(raw), options.encoding).blocks())
    return text, len(raw)


def rows_by_head(
    file: InputFile, options: ReadOptions, count: Callable[[list[str], Account], int], look: int
) -> float:
    """Counts the rows in the beginning of a file of lines, and counts on to its end.

    Args:
        file, options: what to look at, and how.
        count: gives the readable rows in whole lines; those it rejects are counted too.
        look: bytes of the beginning.
    """
    text, read_bytes = head_of(file, options, look)
    # A line that the beginning cuts in two is left to the part that is not looked at.
    whole = text.rfind("\n") + 1 if read_bytes >= look else len(text)
    whole = whole or len(text)
    account = Account()
    lines = [line for _, line, _ in lines_of(iter([text[:whole]]))]
    rows = count(lines, account) + sum(account.reasons.values())
    if read_bytes < look:
        return float(rows)
    return rows * file.raw_bytes() / max(1.0, read_bytes * whole / max(1, len(text)))


def lines_of(blocks: Iterator[str], longest: int = LONGEST) -> Iterator[tuple[int, str, bool]]:
    """Cuts blocks into lines: number from 1, the line and its end, whether it was cut off as too long."""
    rest: list[str] = []
    held, number, cut = 0, 1, False

    def whole(last: str) -> tuple[int, str, bool]:
        return number, "".join([*rest, last]), cut

    for block in blocks:
        pieces = block.split("\n")
        for piece in pieces[:-1]:
            room = longest - held
            if len(piece) > room:
                piece, cut = piece[: max(0, room)], True
            yield whole(piece + "\n")
            rest, held, number, cut = [], 0, number + 1, False
        room = longest - held
        if len(pieces[-1]) > room:
            cut = True
        if room > 0 and pieces[-1]:
            rest.append(pieces[-1][:room])
            held += len(rest[-1])
    if rest:
        yield whole("")


def text_column(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], options: ReadOptions, file: InputFile
) -> str:
    """Names the column that holds the text.

    Raises:
        DataError: the asked column is not there, or none can be told; lists the columns with a sample.
    """
    shown = shown_columns(names, rows)
    asked = options.columns.get("text")
    for role, column in options.columns.items():
        if column not in names:
            near = suggest(column, names)
            raise DataError(
                f"there is no column {column!r}",
                where=f"{file.path}, columns of data.read ({role})",
                found=f"columns: {shown}",
                remedy=f"did you mean {near!r}?" if near else "name one of these columns",
            )
    if asked is not None:
        return asked
    lowered = {name.lower(): name for name in reversed(names)}
    for name in TEXT_NAMES:
        if name in lowered:
            return lowered[name]
    texts = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    if len(texts) == 1 and len(names) == 1:
        return texts[0]
    longest = max(texts, key=lambda name: _length(name, rows), default=names[0] if names else "text")
    raise DataError(
        "which column holds the text?",
        where=str(file.path),
        found=f"columns: {shown}",
        expected=f"a column called {', '.join(TEXT_NAMES[:5])} …",
        remedy=f"add to data.read:  columns: {{text: {quoted(longest)}}}",
    )


def shown_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Lists columns with a sample each."""
    return ", ".join(f"{name} ({_shown(name, rows)})" for name in names) or "none"


def quoted(name: str) -> str:
    """Writes a name as YAML wants it."""
    plain = name.replace("_", "").replace("-", "").isalnum() and not name[0].isdigit()
    return name if plain else '"' + name.replace('"', '\\"') + '"'


def _shown(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    value = next((row[name] for row in rows if row.get(name) not in (None, "")), None)
    text = str(value).replace("\n", " ")
    return repr(text if len(text) <= 24 else text[:23] + "…")


def _length(name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(row[name]) for row in rows if isinstance(row.get(name), str))
