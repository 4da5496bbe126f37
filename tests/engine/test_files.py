"""Compressed files are opened, damaged and endless ones refused, binaries told from text."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import zstandard

from kogata.engine import files
from kogata.engine.files import InputFile, Unreadable, binary_reason

TEXT = ("It is a truth universally acknowledged. 吾輩は猫である。\n" * 5000).encode()


def made(folder: Path, name: str, data: bytes) -> InputFile:
    path = folder / name
    path.write_bytes(data)
    return InputFile(path, name)


def test_plain_gz_and_zst_read_alike(tmp_path: Path) -> None:
    two_members = gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])
    two_frames = zstandard.compress(TEXT[:1000]) + zstandard.compress(TEXT[1000:])
    for name, data in (
        ("a.txt", TEXT), ("a.txt.gz", gzip.compress(TEXT)), ("a.TXT.GZ", gzip.compress(TEXT)),
        ("b.txt.gz", two_members), ("a.txt.zst", zstandard.compress(TEXT)), ("b.txt.zst", two_frames),
    ):  # fmt: skip
        file = made(tmp_path, name, data)
        assert file.suffix == ".txt"
        with file.open() as stream:
            assert stream.read() == TEXT, name


def test_the_size_is_known_without_reading(tmp_path: Path) -> None:
    assert made(tmp_path, "a.txt", TEXT).raw_bytes() == len(TEXT)
    assert made(tmp_path, "a.txt.gz", gzip.compress(TEXT)).raw_bytes() == len(TEXT)
    assert made(tmp_path, "a.txt.zst", zstandard.compress(TEXT)).raw_bytes() == len(TEXT)
    noise = os.urandom(400_000).hex().encode()
    streamed = zstandard.ZstdCompressor().compressobj()
    unsaid = streamed.compress(noise) + streamed.flush()
    assert made(tmp_path, "b.txt.zst", unsaid).raw_bytes() == pytest.approx(len(noise), rel=0.3)
    members = b"".join(gzip.compress(noise[at : at + 100_000]) for at in range(0, len(noise), 100_000))
    assert made(tmp_path, "b.txt.gz", members).raw_bytes() == pytest.approx(len(noise), rel=0.3)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
@pytest.mark.parametrize("harm", ["truncated", "garbage", "no such format"])
def test_damage_names_the_file(tmp_path: Path, name: str, harm: str) -> None:
    noise = os.urandom(100_000)
    checked = zstandard.ZstdCompressor(write_checksum=True)
    packed = gzip.compress(noise) if name.endswith("gz") else checked.compress(noise)
    data = {
        "truncated": packed[: len(packed) // 2],
        "garbage": packed[:40_000] + bytes(200) + packed[40_200:],
        "no such format": b"plain text after all",
    }[harm]
    file = made(tmp_path, name, data)
    with pytest.raises(Unreadable, match="a compressed file is damaged") as caught, file.open() as stream:
        while stream.read(8192):
            pass
    assert str(file.path) in str(caught.value)
    assert caught.value.reason == "damaged file"


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "EXPANSION_FREE", 10**6)
    file = made(tmp_path, "bomb.txt.gz", gzip.compress(b" " * 5 * 10**6))
    with pytest.raises(Unreadable, match="expands beyond measure"), file.open() as stream:
        while stream.read(2**16):
            pass


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"%PDF-1.7 something", "a PDF"),
        (b"PK\x03\x04rest", "a zip archive (or docx, xlsx, epub)"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"text and\0\0\0\0 zeros", "4 NUL bytes in the first 18"),
        (bytes(range(1, 9)) * 10, "80 control bytes in the first 80"),
    ],
)
def test_binaries_are_known(head: bytes, what: str) -> None:
    assert binary_reason(head) == what


@pytest.mark.parametrize(
    "head",
    [b"", b"plain", "日本語".encode("cp932"), "日本語".encode("utf-16"), "plain".encode("utf-16-le"),
     "日本語".encode("iso2022_jp"), b"one \0 stray zero" + b"x" * 2000, b"\x0c page feed\t\r\n"],
)  # fmt: skip
def test_text_is_no_binary(head: bytes) -> None:
    assert binary_reason(head) is None
