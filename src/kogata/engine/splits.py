"""Splits: which documents are held out, by content alone, so that every recipe is judged on the same text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.stage import Account
from kogata.engine.text import utf8_length

LOOKAHEAD_BYTES = 64 * 2**20
LOOKAHEAD_DOCUMENTS = 50_000
"""What is held in memory to choose exactly; a larger corpus is split by a threshold as it streams by."""
FEW = 5
"""With fewer whole documents than this expected in a split, long documents are cut into parts."""
LEAST = 1_000
"""Characters a split must at least have to be judged on."""
PARTS = 10
"""Parts that a split should at least consist of."""
SHORTEST_PART, LONGEST_PART = 2_000, 32_000
"""Characters of a part."""
MOST = 0.25
"""Share of a corpus that the least split may take."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What is set apart: a share by content, or the tail of every document."""

    heldout: float = 0.0
    test: float = 0.0
    heldout_tail: float = 0.0
    test_tail: float = 0.0

    @property
    def by_content(self) -> float:
        """Gives the share set apart by content."""
        return self.heldout + self.test


def content_hash(text: str) -> int:
    """Hashes a text (64 bits), whatever its Unicode form and the white space around it."""
    import xxhash

    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"))


def cut_into_parts(text: str, size: int) -> list[str]:
    """Cuts a text at paragraphs, lines or sentences into parts of about `size` characters."""
    parts: list[str] = []
    start = 0
    while len(text) - start > 1.5 * size:
        for end in ("\n\n", "\n", "。", ". ", " "):
            at = text.find(end, start + size, start + size + size // 2)
            if at >= 0:
                at += len(end)
                while at < len(text) and text[at] == "\n":
                    at += 1
                break
        else:
            at = start + size
        parts.append(text[start:at])
        start = at
    if text[start:]:
        parts.append(text[start:])
    return parts


def split(
    documents: Iterable[Document], shares: Shares, account: Account, *, where: str | None = None
) -> Iterator[Document]:
    """Assigns each document, or each part of a long one, to a split.

    A corpus that fits the look-ahead is split exactly: the lowest hashes until the share is reached. A
    larger one by threshold. Copies share a hash, so they share a split.

    Args:
        documents: what to split.
        shares: how much is set apart, and how.
        account: where the way it was done is noted.
        where: what the documents were read from, for the error.

    Raises:
        DataError: the corpus is too small for the shares asked.
    """
    if shares.heldout_tail or shares.test_tail:
        documents = _tails(documents, shares, account)
    if not shares.by_content:
        yield from documents
        return
    ahead: list[Document] = []
    size, complete = 0, True
    stream = iter(documents)
    for document in stream:
        ahead.append(document)
        size += utf8_length(document.text)
        if size >= LOOKAHEAD_BYTES or len(ahead) >= LOOKAHEAD_DOCUMENTS:
            complete = False
            break
    smallest = min(share for share in (shares.heldout, shares.test) if share)
    whole = len(ahead) * smallest >= FEW
    if complete:
        yield from _exactly(ahead, shares, whole, account, where)
        return
    account.extra["split"] = {
        "unit": "documents" if whole else f"parts of about {LONGEST_PART} characters",
        "chosen": "by threshold of the content's hash",
    }
    for document in chain(ahead, stream):
        yield from _assigned(document, shares, None if whole else LONGEST_PART)


def _assigned(document: Document, shares: Shares, size: int | None) -> Iterator[Document]:
    def place(text: str) -> str:
        where = content_hash(text) / 2**64
        return "test" if where < shares.test else "heldout" if where < shares.by_content else "train"

    if size is None or len(document.text) <= 1.5 * size:
        yield replace(document, split=place(document.text))
        return
    parts = cut_into_parts(document.text, size)
    yield from _joined(document, parts, [place(part) for part in parts])


def _joined(document: Document, parts: list[str], places: list[str]) -> Iterator[Document]:
    """Joins neighbouring parts of the same split again; a document wholly in one split stays as it was."""
    if len(set(places)) == 1:
        yield replace(document, split=places[0])
        return
    run: list[str] = []
    number = 0
    for at, (part, where) in enumerate(zip(parts, places, strict=True)):
        run.append(part)
        if at + 1 == len(parts) or places[at + 1] != where:
            number += 1
            yield replace(document, id=f"{document.id}#{number}", text="".join(run), split=where)
            run = []


def _exactly(
    ahead: list[Document], shares: Shares, whole: bool, account: Account, where: str | None
) -> Iterator[Document]:
    total = sum(len(document.text) for document in ahead)
    if not ahead:
        return
    wanted = {
        name: max(LEAST, share * total)
        for name, share in (("test", shares.test), ("heldout", shares.heldout))
        if share
    }
    if sum(wanted.values()) > max(MOST, shares.by_content) * total:
        raise _too_small(ahead, wanted, where)
    size = int(min(LONGEST_PART, max(SHORTEST_PART, min(wanted.values()) / PARTS)))
    pieces = [[document.text] if whole else cut_into_parts(document.text, size) for document in ahead]
    hashes = [[content_hash(piece) for piece in parts] for parts in pieces]
    weight: dict[int, int] = {}
    for parts, names in zip(pieces, hashes, strict=True):
        for part, name in zip(parts, names, strict=True):
            weight[name] = weight.get(name, 0) + len(part)
    places = choose_lowest(weight, wanted)
    missing = [name for name in wanted if name not in places.values()]
    if missing or len(places) == len(weight):
        raise _too_small(ahead, wanted, where)
    cut = sum(len(parts) > 1 for parts in pieces)
    account.extra["split"] = {
        "unit": f"parts of about {size} characters" if cut else "documents",
        "chosen": "the lowest content hashes until the share is reached",
        "documents_cut": sum(len({places.get(name, "train") for name in names}) > 1 for names in hashes),
    }
    done: dict[str, list[Document]] = {"test": [], "heldout": [], "train": []}
    for document, parts, names in zip(ahead, pieces, hashes, strict=True):
        for piece in _joined(document, parts, [places.get(name, "train") for name in names]):
            done[piece.split].append(piece)
    for name in ("test", "heldout", "train"):
        yield from done[name]


def choose_lowest(weight: dict[int, int], wanted: dict[str, float]) -> dict[int, str]:
    """Fills the splits with the lowest hashes; passes over what would make one half again too large."""
    places: dict[int, str] = {}
    waiting = sorted(weight)
    for name, target in wanted.items():
        taken = 0
        for candidate in waiting:
            if taken >= target:
                break
            if candidate not in places and taken + weight[candidate] <= 1.5 * target:
                places[candidate] = name
                taken += weight[candidate]
    return places


def _too_small(ahead: list[Document], wanted: dict[str, float], where: str | None) -> DataError:
    least = int(LEAST * len(wanted) / MOST)
    documents = f"{len(ahead)} document{'s' * (len(ahead) != 1)}"
    size = sum(utf8_length(document.text) for document in ahead)
    return DataError(
        "the corpus is too small to hold some of it out",
        where=where,
        found=f"{documents}, {size} bytes, {sum(len(document.text) for document in ahead)} characters",
        expected=f"at least {least} characters, so that {' and '.join(wanted)} get {LEAST} each",
        remedy="give more text, or name another file (heldout: other.txt), or go without (heldout: 0)",
    )


def _tails(documents: Iterable[Document], shares: Shares, account: Account) -> Iterator[Document]:
    account.extra["split"] = {"unit": "documents", "chosen": "the tail of every document"}
    for document in documents:
        text = document.text
        first = int(len(text) * (1 - shares.heldout_tail - shares.test_tail))
        second = int(len(text) * (1 - shares.test_tail)) if shares.test_tail else len(text)
        named = len([part for part in (first, second - first, len(text) - second) if part]) > 1
        for where, part in (
            ("test", text[second:]), ("heldout", text[first:second]), ("train", text[:first])
        ):  # fmt: skip
            if part.strip():
                name = f"{document.id}#{where}" if named else document.id
                yield replace(document, id=name, text=part, split=where)
