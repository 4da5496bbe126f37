"""HTTP responses as archives hold them: status, headers, and bodies with their codings undone.

Crawlers write what servers sent, so nothing is taken on trust: a body that is not chunked or packed as its
headers say is passed on as it is, and one that expands beyond measure is given up.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?\s+(\d{3})")
_CHUNK = re.compile(rb"\s*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_READERS = {"br": "BrotliReader", "zstd": "ZstdReader"}
HEADERS = 2**16
"""Bytes that a response's headers take at most."""


class TooLarge(Exception):
    """A body is larger than the limit once its coding is undone."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """The head of a response."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """Small-letter name → value; of several the last."""

    @property
    def media_type(self) -> str:
        """Gives the media type without parameters, in small letters."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """Gives the charset the server named."""
        found = _CHARSET.search(self.headers.get("content-type", ""))
        return found[1] if found else ""


def parse_head(block: bytes) -> tuple[Response, int] | None:
    """Parses status line and headers; gives them and where the body begins; None when it is no response."""
    status = _STATUS.match(block)
    if status is None:
        return None
    ends = [(at, len(end)) for end in (b"\r\n\r\n", b"\n\n") if (at := block.find(end)) >= 0]
    end, width = min(ends, default=(len(block), 0))
    headers: dict[str, str] = {}
    for line in block[:end].split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    return Response(status=int(status[1]), headers=headers), end + width


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """Undoes chunked transfer coding; gives the body and whether it was chunked as it should be."""
    parts: list[bytes] = []
    at = 0
    while True:
        head = _CHUNK.match(body, at)
        if head is None:
            # Not chunked at all, or damaged on the way: the rest is passed on as it is.
            return b"".join([*parts, body[at:]]), False
        size = int(head[1], 16)
        at = head.end()
        if size == 0:
            return b"".join(parts), True
        parts.append(body[at : at + size])
        if at + size > len(body):
            return b"".join(parts), False
        at += size


def unpack(body: bytes, coding: str, limit: int) -> bytes:
    """Undoes a content coding; a body that is not packed that way is given back as it is.

    Raises:
        TooLarge: what comes out is more than `limit` bytes.
    """
    coding = coding.strip().lower()
    if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        return _inflate(body, 31, limit)
    if coding == "deflate":
        return _inflate(body, 15 if body[:1] == b"\x78" else -15, limit)
    reader = _READERS.get(coding)
    return _read_through(reader, body, limit) if reader else body


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    found = bytearray()
    try:
        for at in range(0, len(body), 2**11):
            found += unpacker.decompress(body[at : at + 2**11], limit + 1 - len(found))
            if len(found) > limit:
                raise TooLarge
    except zlib.error:
        # A gz body says what it is: what came before the damage counts. Others may not be packed at all.
        return bytes(found) if window == 31 and found else body
    return bytes(found)


def _read_through(name: str, body: bytes, limit: int) -> bytes:
    import io

    from fastwarc import stream_io

    reader = getattr(stream_io, name)(io.BytesIO(body))
    found = bytearray()
    try:
        while len(found) <= limit and (part := reader.read(2**16)):
            found += part
    except OSError:
        return body
    if len(found) > limit:
        raise TooLarge
    return bytes(found) or body
