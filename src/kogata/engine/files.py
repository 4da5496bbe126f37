"""Files of text: opening them plain or compressed, telling binaries apart, knowing their real size."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kogata.core.errors import DataError

COMPRESSED = (".gz", ".zst")
EXPANSION = 200
"""More than this many times the packed size is no text …"""
EXPANSION_FREE = 2**30
"""… once it is more than this many bytes."""

LOOKED_INTO = 2**16
"""Bytes of text unpacked to see how much a file expands."""
MOST_UNPACKED = 2**26
"""… and at most, when the packed bytes end long before the text does."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive (or docx, xlsx, epub)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x7fELF", "a program"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"PAR1", "a parquet file"),
    (b"GGUF", "a GGUF model"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"Rar!", "a RAR archive"),
    (b"OggS", "an Ogg recording"),
    (b"RIFF", "a recording or film"),
    (b"ID3", "an MP3 recording"),
)


class Unreadable(DataError):
    """One file cannot be read. Fatal where the user named it, a counted reason in a folder or pattern."""

    reason = "unreadable file"

    def because(self, reason: str) -> Unreadable:
        """Sets the reason under which the file is counted."""
        self.reason = reason
        return self


@dataclass(frozen=True)
class InputFile:
    """A file to read and what it is called in the corpus (never the path on this machine)."""

    path: Path
    name: str

    @property
    def suffix(self) -> str:
        """The format's suffix, compression left out: `.txt` of `a.txt.gz`."""
        name = self.path.name.lower()
        for packed in COMPRESSED:
            name = name.removesuffix(packed)
        return Path(name).suffix

    @property
    def packed(self) -> str | None:
        """`.gz`, `.zst` or None."""
        name = self.path.name.lower()
        return next((suffix for suffix in COMPRESSED if name.endswith(suffix)), None)

    def open(self) -> BinaryIO:
        """Opens the content, decompressed.

        Raises:
            Unreadable: while reading too: the compressed data is damaged, or expands beyond measure.
        """
        raw = self.path.open("rb")
        if self.packed == ".gz":
            return _buffered(gzip.GzipFile(fileobj=raw), raw, self)
        if self.packed == ".zst":
            return _buffered(io.BufferedReader(_Zstd(raw), 2**17), raw, self)
        return raw

    def raw_bytes(self) -> int:
        """Estimates the size after decompression without reading it all; exact for a plain file."""
        size = self.path.stat().st_size
        if self.packed is None or size < 20:
            return size
        if self.packed == ".zst":
            import zstandard

            with self.path.open("rb") as file:
                said = zstandard.frame_content_size(file.read(64))
        else:
            with self.path.open("rb") as file:
                file.seek(-4, io.SEEK_END)
                (said,) = struct.unpack("<I", file.read(4))
        # What a file says is true of its first frame or last member, modulo 4 GiB: believe what can be true.
        low, high = self._by_ratio(size)
        return said if low <= said <= high else round(low / 0.6)

    def _by_ratio(self, size: int) -> tuple[float, float]:
        """Bounds the size by how much the beginning expands."""
        with self.path.open("rb") as raw:
            counted = _Counted(raw)
            if self.packed == ".gz":
                reader: Any = gzip.GzipFile(fileobj=counted)
                unpacked = None
            else:
                unpacked = _Zstd(counted)  # type: ignore[arg-type]
                reader = io.BufferedReader(unpacked)
            try:
                got = len(reader.read(LOOKED_INTO))
                if got == LOOKED_INTO and counted.count >= size:
                    got += len(reader.read(MOST_UNPACKED))
                    return got, got
            except (OSError, EOFError, zlib.error, RuntimeError):
                return size * 1.0, size * 9.0
        if got < LOOKED_INTO:
            return got, got
        made = unpacked.made if unpacked else got
        # Up to a buffer of packed bytes was read ahead and not yet unpacked.
        used = max(1, counted.count - (_Zstd.FED if unpacked else 2**17))
        return 0.6 * size * made / counted.count, 1.7 * size * made / used


class _Counted(io.RawIOBase):
    """Counts what is read through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw, self.count = raw, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        self.count += len(data)
        return data


class _Zstd(io.RawIOBase):
    """Reads zstd, one frame after another; a frame that ends early is an EOFError, not an end."""

    # A block of 4 bytes may become 128 KiB, so little is fed at a time.
    FED = 2048

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._make = zstandard.ZstdDecompressor().decompressobj
        self._raw, self._frame, self._rest = raw, self._make(), b""
        self._ready = memoryview(b"")
        self._begun = False
        self.made = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            fed = self._rest or self._raw.read(self.FED)
            self._rest = b""
            if not fed:
                if self._begun:
                    raise EOFError
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(fed))
            self.made += len(self._ready)
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame, self._begun = self._make(), False
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def refuse_expansion(file: InputFile, packed: int, unpacked: int) -> None:
    """Raises `Unreadable` when so many packed bytes became more than any text would."""
    if unpacked > EXPANSION_FREE and unpacked > EXPANSION * packed:
        raise Unreadable(
            "a compressed file expands beyond measure",
            where=str(file.path),
            found=f"{packed} bytes became more than {unpacked}",
            expected=f"at most {EXPANSION} times its size",
            remedy="unpack it yourself if it is meant, or leave it out of the path",
        ).because("expands beyond measure")


def _buffered(reader: Any, raw: BinaryIO, file: InputFile) -> BinaryIO:
    return io.BufferedReader(_Guarded(reader, raw, file), 2**18)


class _Guarded(io.RawIOBase):
    """Reads compressed data; damage and endless expansion become `Unreadable`."""

    def __init__(self, reader: Any, raw: BinaryIO, file: InputFile) -> None:
        self._reader, self._raw, self._file = reader, raw, file
        self._size = max(1, file.path.stat().st_size)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._reader.readinto(buffer)
        except EOFError:
            raise self._damaged("it ends too early") from None
        except Exception as error:
            known = isinstance(error, gzip.BadGzipFile | zlib.error) or "zstd" in str(error).lower()
            if not known:
                raise
            raise self._damaged(str(error)) from None
        self._count += count
        refuse_expansion(self._file, self._size, self._count)
        return count

    def _damaged(self, found: str) -> Unreadable:
        return Unreadable(
            "a compressed file is damaged",
            where=str(self._file.path),
            found=f"{found}, after {self._count} bytes of text",
            expected=f"a whole {self._file.packed} file",
            remedy="fetch it again, or leave it out of the path",
        ).because("damaged file")

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
            self._raw.close()
        super().close()


def binary_reason(head: bytes) -> str | None:
    """Says why the beginning of a file is no text; None when it may be."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or not head:
        return None
    zeros = head.count(0)
    if zeros:
        from kogata.engine.encodings import detect

        wide = detect(head[: 2**16]).startswith("utf-16")
        if not wide and zeros > len(head) / 1000:
            return f"{zeros} NUL bytes in the first {len(head)}"
    controls = sum(head.count(code) for code in (*range(1, 9), *range(14, 27), *range(28, 32)))
    if controls > len(head) / 20:
        return f"{controls} control bytes in the first {len(head)}"
    return None


def refuse_binary(head: bytes, file: InputFile) -> None:
    """Raises `Unreadable` when the beginning of a file is no text."""
    reason = binary_reason(head)
    if reason:
        raise Unreadable(
            "this is not a text file",
            where=str(file.path),
            found=reason,
            expected="text (txt, md, jsonl, csv, tsv) or parquet, plain or as .gz or .zst",
            remedy="turn it into text first, or leave it out of the path",
        ).because("binary file")
