"""WARC and WET archives: the pages in them, and a counted reason for every record that is none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

from kogata.core.artifact import Document
from kogata.core.errors import EnvironmentProblem
from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.web.http import HEADERS, TooLarge, dechunk, parse_head, unpack
from kogata.engine.web.page import Page
from kogata.engine.web.stream import ArchiveStream

PAGES = ("response", "resource", "conversion")
"""Types of records that may hold a page."""
HTML_TYPES = ("text/html", "application/xhtml+xml")
_SNIFFED = (b"<!doctype html", b"<html", b"<head", b"<body")


def read_pages(file: InputFile, most: int, account: Account) -> Iterator[Page]:
    """Yields the pages of an archive, a record at a time.

    Args:
        file: WARC or WET, plain, gz or zst.
        most: bytes of the largest page.
        account: where records that are no page are counted with their reason.

    Raises:
        Unreadable: the file is no such archive, or expands beyond measure.
        EnvironmentProblem: FastWARC is not installed.
    """
    try:
        from fastwarc.warc import ArchiveIterator
    except ImportError:
        raise EnvironmentProblem(
            "archives cannot be read: fastwarc is not installed", remedy="pip install 'kogata[web]'"
        ) from None
    reader = _Records(file, most, account)
    with ArchiveStream(file) as stream:
        searched = -1
        while True:
            base = stream.position
            end = base
            try:
                for record in ArchiveIterator(stream, parse_http=False, stream_detect=False):
                    page = reader.page(record) if str(record.record_type) in PAGES else None
                    # All of it has gone by once the next is asked for: no record is looked for in another.
                    end = record.stream_pos + record.content_length
                    if page is not None:
                        yield page
            except OSError as error:
                if reader.number == 0 and stream.starts(b"filedesc:"):
                    raise _arc(file) from None
                searched = max(end, searched, base) + 1
                if stream.to_record(searched):
                    searched = stream.position
                    reader.broken("damaged record", str(error))
                    continue
                if not stream.damaged:
                    if reader.number == 0 and not reader.damages:
                        raise _no_archive(file, str(error)) from None
                    reader.broken("damaged record", str(error))
            if not stream.damaged:
                return
            stream.damaged = False
            reader.broken("damaged gz data", f"after {stream.position} bytes")


def _arc(file: InputFile) -> Unreadable:
    return Unreadable(
        "this is an ARC archive, the format before WARC",
        where=str(file.path),
        expected="WARC or WET, plain, .gz or .zst",
        remedy="turn it into WARC first, for example with `warcio recompress`",
    ).because("ARC archive")


def _no_archive(file: InputFile, found: str) -> Unreadable:
    return Unreadable(
        "this is no WARC archive",
        where=str(file.path),
        found=found,
        expected="records that begin with WARC/1.0 or WARC/1.1",
        remedy="leave it out of the path",
    ).because("no WARC archive")


class _Records:
    """Turns records into pages and counts those that are none."""

    def __init__(self, file: InputFile, most: int, account: Account) -> None:
        self.file, self.most, self.account = file, most, account
        self.number = self.damages = 0

    def broken(self, reason: str, value: str) -> None:
        """Counts a place where no record could be read."""
        self.damages += 1
        self.account.reject(
            reason, Document(f"{self.file.name}:{self.number}", "", source=self.file.name), value
        )

    def page(self, record: Any) -> Page | None:
        """Gives the page of a record; None, counted, when it holds none."""
        self.number += 1
        self.account.read += 1
        url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
        head = _read(record.reader, HEADERS)
        self.account.read_bytes += record.content_length
        kind = str(record.record_type)
        if kind == "response":
            return self._response(record, head, url)
        said = (record.headers.get("Content-Type") or "").split(";")[0].strip().lower()
        text = kind == "conversion" and said == "text/plain"
        if not text and said not in HTML_TYPES:
            return self._none("not HTML", said or "no type", url)
        body = self._whole(record, head, url)
        return None if body is None else self._made(body, record, url, "utf-8" if text else "", not text)

    def _response(self, record: Any, head: bytes, url: str) -> Page | None:
        if not url.lower().startswith(("http:", "https:")):
            return self._none("no web page", url[:80], url)
        parsed = parse_head(head)
        if parsed is None:
            return self._none("no HTTP response", repr(head[:40]), url)
        response, start = parsed
        if response.status != 200:
            return self._none(f"HTTP status {response.status}", url[:200], url)
        media = response.media_type
        bare = head[start : start + 512].lstrip().lower()
        if media not in HTML_TYPES and (media or not bare.startswith(_SNIFFED)):
            return self._none("not HTML", media or "no type", url)
        block = self._whole(record, head, url)
        if block is None:
            return None
        body = block[start:]
        if "chunked" in response.headers.get("transfer-encoding", "").lower():
            body, right = dechunk(body)
            if not right:
                self._note("wrong_chunking")
        try:
            for coding in reversed(response.headers.get("content-encoding", "").split(",")):
                body = unpack(body, coding, self.most)
        except TooLarge:
            return self._none("page too large", f"more than {self.most} bytes unpacked", url)
        return self._made(body, record, url, response.charset, True)

    def _whole(self, record: Any, head: bytes, url: str) -> bytes | None:
        if record.content_length > self.most + HEADERS:
            return self._none("page too large", f"{record.content_length} bytes", url)
        block = head + _read(record.reader, record.content_length - len(head))
        if len(block) < record.content_length:
            return self._none("cut-off record", f"{len(block)} of {record.content_length} bytes", url)
        return block

    def _made(self, body: bytes, record: Any, url: str, charset: str, html: bool) -> Page | None:
        if len(body) > self.most:
            return self._none("page too large", f"{len(body)} bytes", url)
        if not body.strip():
            return self._none("empty page", None, url)
        if record.headers.get("WARC-Truncated"):
            self._note("truncated_by_the_crawler")
        date = record.record_date
        return Page(
            id=f"{self.file.name}:{self.number}",
            source=self.file.name,
            content=body,
            url=url,
            date=date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if date else "",
            charset=charset,
            html=html,
        )

    def _none(self, reason: str, value: str | None, url: str) -> None:
        name = f"{self.file.name}:{self.number}"
        self.account.reject(reason, Document(name, "", source=url[:200] or self.file.name), value)

    def _note(self, name: str) -> None:
        self.account.extra[name] = self.account.extra.get(name, 0) + 1


def _read(reader: Any, count: int) -> bytes:
    """Reads up to `count` bytes of a record; fewer only at its end."""
    parts: list[bytes] = []
    while count > 0:
        part = reader.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
