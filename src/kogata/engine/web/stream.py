"""The bytes of an archive, unpacked member by member: reading goes on behind what is damaged."""

from __future__ import annotations

import io
import zlib
from collections import deque
from typing import Any, BinaryIO

from kogata.engine.files import InputFile, refuse_expansion

READ = 2**16
KEPT = 2**20
"""Bytes already given that are kept, to find the next record in."""
_MEMBER = b"\x1f\x8b\x08"
_RECORD = b"WARC/1."


class ArchiveStream(io.RawIOBase):
    """Reads an archive, gz or not, whatever its name says; gives an end where data are damaged.

    After an end, `damaged` says whether it was one; reading on begins behind the damage. `to_record` skips to
    the next place where a record begins.

    Raises:
        Unreadable: while reading: the data expand beyond measure, or a zst file is damaged.
    """

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self._raw: BinaryIO = file.open() if file.packed == ".zst" else file.path.open("rb")
        self._packed = self._raw.peek(2)[:2] == _MEMBER[:2]  # type: ignore[attr-defined]
        self._size = max(1, file.path.stat().st_size)
        self._unpacker: Any = None
        self._made = 0
        self._fed = b""
        self._ready = b""
        self._given: deque[bytes] = deque()
        self._kept = 0
        self.position = 0
        """Bytes given so far."""
        self.damaged = False

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes forward only, by reading; FastWARC asks for the position this way."""
        target = offset + (self.position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < self.position:
            raise io.UnsupportedOperation("seek")
        while self.position < target and self.read(min(READ, target - self.position)):
            pass
        return self.position

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes; nothing at an end."""
        size = READ if size is None or size < 0 else size
        while not self._ready:
            self._ready = self._unpack() if self._packed else self._raw.read(READ)
            if not self._ready:
                return b""
        data, self._ready = self._ready[:size], self._ready[size:]
        self.position += len(data)
        self._given.append(data)
        self._kept += len(data)
        while self._kept - len(self._given[0]) >= KEPT:
            self._kept -= len(self._given.popleft())
        refuse_expansion(self.file, self._size, self.position)
        return data

    def _unpack(self) -> bytes:
        """Unpacks some of the current member, or begins the next; nothing at the end and at damage."""
        while True:
            if not self._fed:
                self._fed = self._raw.read(READ)
                if not self._fed:
                    self.damaged |= self._unpacker is not None
                    self._unpacker = None
                    return b""
            if self._unpacker is None:
                at = self._fed.find(_MEMBER)
                if at < 0:
                    # A mark may be cut in two by the end of what was read.
                    rest = self._raw.read(READ)
                    if not rest:
                        self._fed = b""
                        return b""
                    self._fed = self._fed[-2:] + rest
                    continue
                self._fed = self._fed[at:]
                self._unpacker, self._made = zlib.decompressobj(31), 0
            try:
                made = self._unpacker.decompress(self._fed, 4 * READ)
            except zlib.error:
                # What was fed may hold the beginning of the next member, though not at its first bytes.
                self._fed = self._fed[1:]
                self._unpacker = None
                if self.damaged and not self._made:
                    continue
                self.damaged = True
                return b""
            self._fed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if self._unpacker.eof:
                self._unpacker = None
            if made:
                self._made += len(made)
                return made

    def starts(self, mark: bytes) -> bool:
        """Says whether the archive begins with a mark, while its beginning is still kept."""
        return self._kept == self.position > 0 and self._given[0].startswith(mark)

    def to_record(self, past: int) -> bool:
        """Goes to the next record that begins at or after a position; says whether there is one."""
        window = b"".join(self._given)[max(0, past - (self.position - self._kept)) :]
        while (at := _find_record(window)) < 0:
            more = self.read(READ)
            if not more:
                return False
            window = window[-16:] + more
        back = window[at:]
        self._ready = back + self._ready
        self.position -= len(back)
        self._given = deque()
        self._kept = 0
        return True

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            self._raw.close()
        super().close()


def _find_record(window: bytes) -> int:
    """Finds where a record begins, at a line's start; -1 where none does."""
    at = window.find(_RECORD)
    while at > 0 and window[at - 1] != 10:
        at = window.find(_RECORD, at + 1)
    return at
