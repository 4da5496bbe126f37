"""The charset of a page: what it says of itself where that is true, else what its bytes say."""

from __future__ import annotations

import codecs
import re

from kogata.engine.encodings import detect

LOOKED_FOR = 2048
"""Bytes from the start in which a page says its charset."""
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]{2,40})", re.I)
_WIDER = {
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "gb_2312-80": "gb18030",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "ms932": "cp932", "x-euc-jp": "euc_jp", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "ksc5601": "cp949",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
    "iso-8859-9": "cp1254", "tis-620": "cp874", "iso-8859-11": "cp874", "big5": "big5hkscs",
    "x-x-big5": "big5hkscs", "unicode": "utf-8", "utf8mb4": "utf-8", "none": "", "unknown": "",
}  # fmt: skip
"""What pages call it → what browsers decode it with (WHATWG Encoding): a charset that holds it and more."""
_ONE_BYTE = ("cp125", "iso8859", "koi8", "cp874", "mac", "latin")
_WIDE = ("utf-16", "utf-32")


def decode_page(content: bytes, served: str = "") -> tuple[str, str]:
    """Decodes a page; gives its text and the encoding it was in.

    Bytes beyond ASCII that are valid UTF-8 are UTF-8, whatever is said: no other text is so by chance. Then
    the first of mark, server and page that decodes without a fault; else the most plausible. A byte that
    cannot be decoded becomes one of U+DC80 to U+DCFF, which `mend` counts.

    Args:
        content: the page's bytes.
        served: the charset of the server's header.
    """
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = detect(content[:64])
        return content.decode(name, "replace"), name
    said = [name for name in map(_known, (served, _declared(content))) if name]
    if b"\0" not in content[:LOOKED_FOR]:
        # A page whose own words can be read byte by byte is not in wide characters, whatever they say.
        said = [name for name in said if not name.startswith(_WIDE)]
    seven_bit = b"\x1b$" in content or any(name.startswith(("iso2022", "hz")) for name in said)
    if not seven_bit and not any(name.startswith(_WIDE) for name in said):
        try:
            return content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            pass
    if any(name.startswith(_ONE_BYTE) for name in said) and _misnamed(content):
        said = [name for name in said if not name.startswith(_ONE_BYTE)]
    for name in said:
        try:
            return content.decode(name), name
        except UnicodeDecodeError:
            pass
    found = detect(content)
    if said and _faults(content, said[0]) <= _faults(content, found):
        found = said[0]
    return content.decode(found, "surrogateescape"), found


def _declared(content: bytes) -> str:
    head = content[:LOOKED_FOR]
    found = _XML.search(head) or _META.search(head)
    return found[1].decode("ascii") if found else ""


def _known(name: str) -> str:
    """Gives Python's name of a charset as browsers take it; nothing when there is none."""
    name = name.strip().lower()
    try:
        return codecs.lookup(_WIDER.get(name, name)).name if name else ""
    except LookupError:
        return ""


def _misnamed(content: bytes) -> bool:
    """Says whether a page that calls itself Western is plainly Japanese, Chinese, Korean or Cyrillic."""
    beyond = len(content) - len(content.translate(None, _BEYOND_ASCII))
    return beyond > len(content) / 20 and not detect(content).startswith(_ONE_BYTE)


_BEYOND_ASCII = bytes(range(0x80, 0x100))


def _faults(content: bytes, name: str) -> int:
    text = content.decode(name, "surrogateescape")
    return sum("\udc80" <= char <= "\udcff" for char in text) if not text.isascii() else 0
