"""Plain text and Markdown: a file is one document unless it is cut."""

from __future__ import annotations

from collections.abc import Iterator

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile
from kogata.engine.readers._common import LONGEST, LOOK, ROWS_LOOK, ReadOptions, Sample, decoder_of, head_of

SUFFIXES = (".txt", ".text", ".md", ".markdown")

_SEPARATORS = {"line": "\n", "blank_line": "\n\n"}


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields the file as one document, or cut at `split_on`; a longer one than memory allows is cut too."""
    decoder = decoder_of(file, options)
    with decoder.stream:
        if options.split_on is None:
            yield from _whole(file, _plain_ends(decoder.blocks()), account)
        else:
            separator = _SEPARATORS.get(options.split_on, options.split_on)
            yield from _split(file, _plain_ends(decoder.blocks()), separator, account)
    account.read_bytes += decoder.read_bytes


def _whole(file: InputFile, blocks: Iterator[str], account: Account) -> Iterator[Document]:
    held, number = "", 0
    for block in blocks:
        held += block
        while len(held) > LONGEST:
            at = cut_at(held, LONGEST)
            number += 1
            account.extra["cut_documents"] = account.extra.get("cut_documents", 0) + 1
            yield Document(f"{file.name}:{number}", held[:at], source=file.name)
            held = held[at:]
    yield Document(f"{file.name}:{number + 1}" if number else file.name, held, source=file.name)


def _split(file: InputFile, blocks: Iterator[str], separator: str, account: Account) -> Iterator[Document]:
    held, number = "", 0
    for block in blocks:
        *parts, held = (held + block).split(separator)
        if len(held) > LONGEST:
            at = cut_at(held, LONGEST)
            parts.append(held[:at])
            held = held[at:]
            account.extra["cut_documents"] = account.extra.get("cut_documents", 0) + 1
        for part in parts:
            number += 1
            if part.strip():
                yield Document(f"{file.name}:{number}", part.strip("\n"), source=file.name)
    if held.strip():
        yield Document(f"{file.name}:{number + 1}", held.strip("\n"), source=file.name)


def cut_at(text: str, most: int) -> int:
    """Finds where to cut a text that is too long: after a blank line, a line, a space, or just there."""
    for end in ("\n\n", "\n", "。", " "):
        at = text.rfind(end, most // 2, most)
        if at >= 0:
            return at + len(end)
    return most


def _plain_ends(blocks: Iterator[str]) -> Iterator[str]:
    """Turns CRLF and lone CR line ends into LF, also where a block ends between the two."""
    waiting = ""
    for block in blocks:
        block = waiting + block
        waiting = ""
        if "\r" in block:
            if block.endswith("\r"):
                block, waiting = block[:-1], "\r"
            block = block.replace("\r\n", "\n").replace("\r", "\n")
        yield block
    if waiting:
        yield "\n"


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the beginning of a file."""
    text, read_bytes = head_of(file, options, look)
    documents = 0.0
    if options.split_on is not None:
        separator = _SEPARATORS.get(options.split_on, options.split_on)
        documents = sum(bool(part.strip()) for part in "".join(_plain_ends(iter([text]))).split(separator))
    size = len(text.encode("utf-8", "surrogatepass"))
    return Sample(read=read_bytes, documents=documents, bytes=size, characters=len(text), text=text)


def count_rows(file: InputFile, options: ReadOptions, look: int = ROWS_LOOK) -> float:
    """Estimates the pieces a file is cut into; one where it is not cut."""
    if options.split_on is None:
        return 1.0
    seen = sample(file, options, look)
    return seen.documents * max(1.0, file.raw_bytes() / max(1, seen.read))
