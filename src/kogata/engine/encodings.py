"""Encodings: which one bytes are in, decoding block by block, and mending what no text should hold."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 4 * 2**20
"""Bytes read at a time, and the most that detection looks at."""

_WEIGHED = 2**13
"""Bytes, from the first beyond ASCII on, that are weighed per candidate; more changes no verdict."""
_PLAUSIBLE = 0.6
"""A decoding without a fault that scores more is taken before any with faults is tried."""
_SURE = {"utf-8": 0.99, "cp932": 0.75, "euc_jp": 0.75}
"""No text of another encoding scores so much in these: Japanese has kana."""
_BEYOND = re.compile(rb"[\x80-\xff]")
_UNDECODED = re.compile("[\udc80-\udcff]")
_LONE = re.compile("[\ud800-\udfff]")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TYPOGRAPHY = set("‘’“”–—…•€™«»¡¿£§©®°·×½¼¾ºª´")


def detect(data: bytes, *, whole: bool = True) -> str:
    """Names the encoding of bytes: a mark at the start, strict UTF-8, else the most plausible decoding.

    Args:
        data: the text's bytes, or its beginning.
        whole: false when more follows; then a character cut off at the end is no fault.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    if b"\x1b$" in data or b"\x1b(J" in data:
        if _errors(data, "iso2022_jp") == 0:
            return "iso2022_jp"
    wide = _utf16_by_zeros(data)
    if wide:
        return wide
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(data, final=whole)
        return "utf-8"
    except UnicodeDecodeError:
        pass
    first = _BEYOND.search(data)
    start = max(0, first.start() - 64) if first else 0
    weighed = data[start : start + _WEIGHED]
    whole = whole and start + _WEIGHED >= len(data)
    for lenient in (False, True):
        scores: dict[str, float] = {}
        for name, weigh in _CANDIDATES.items():
            scores[name] = _plausibility(weighed, name, weigh, lenient=lenient, whole=whole)
            if name in _SURE and scores[name] > _SURE[name]:
                return name
        best = max(scores, key=lambda name: scores[name])
        if scores[best] > _PLAUSIBLE:
            break
    return best


def _utf16_by_zeros(data: bytes) -> str | None:
    """Recognises UTF-16 without a mark by zeros in every other place; only text with many ASCII letters."""
    sample = data[: 2**16]
    if len(sample) < 4:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) / 2
    if odd > 0.4 * half and even < 0.02 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.02 * half:
        return "utf-16-be"
    return None


def _errors(data: bytes, encoding: str) -> int:
    return len(_UNDECODED.findall(data.decode(encoding, "surrogateescape")))


def _plausibility(data: bytes, encoding: str, weigh: Weigh, *, lenient: bool, whole: bool) -> float:
    """Scores a decoding between about −4 and 1: the mean weight of its characters beyond ASCII."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if lenient else "strict")
    try:
        text = decoder.decode(data, final=whole)
    except UnicodeDecodeError:
        return -9.0
    runs = re.findall(r"[^\x00-\x7f]+", text)
    beyond = Counter("".join(runs))
    total = sum(beyond.values())
    if not total:
        return 0.0
    wrong = sum(count for char, count in beyond.items() if "\udc80" <= char <= "\udcff")
    # Scripts of their own stand in runs, accents stand alone among ASCII letters.
    alone = sum(len(run) <= 2 for run in runs) / len(runs)
    return (weigh(beyond, alone) - 4 * wrong) / total


Weigh = Callable[[Counter[str], float], float]
"""Characters beyond ASCII with their counts, and the share of short runs → the sum of their weights."""


def _two_bytes(char: str, encoding: str) -> int:
    """Gives the first byte of a character's two bytes in an encoding; 0 where there are not two."""
    try:
        raw = char.encode(encoding)
    except UnicodeEncodeError:
        return 0
    return raw[0] if len(raw) == 2 else 0


def _japanese(chars: Counter[str], alone: float) -> float:
    score, kana = 0.0, 0
    for char, count in chars.items():
        if "ぁ" <= char <= "ヿ":
            score, kana = score + count, kana + count
        elif "\u3000" <= char <= "〟" or "！" <= char <= "～":
            score += 0.9 * count
        elif "一" <= char <= "龥":
            # Rows 16 to 47 of JIS X 0208 hold the common characters, the rest is rare.
            score += (0.8 if 0xB0 <= _two_bytes(char, "euc_jp") <= 0xCF else 0.0) * count
        elif "｡" <= char <= "ﾟ":
            score -= 0.3 * count
    return score if kana else 0.7 * score


def _chinese(encoding: str, first: int, last: int) -> Weigh:
    def weigh(chars: Counter[str], alone: float) -> float:
        score = 0.0
        for char, count in chars.items():
            if "一" <= char <= "龥":
                score += (0.9 if first <= _two_bytes(char, encoding) <= last else 0.0) * count
            elif "、" <= char <= "〗" or "！" <= char <= "～" or char in _TYPOGRAPHY:
                score += 0.9 * count
            elif "ぁ" <= char <= "ヿ":
                score -= count
        return score

    return weigh


def _korean(chars: Counter[str], alone: float) -> float:
    score = 0.0
    for char, count in chars.items():
        if "가" <= char <= "힣":
            score += (1.0 if _two_bytes(char, "euc_kr") else -0.3) * count
        elif "一" <= char <= "龥" or "ぁ" <= char <= "ヿ":
            score -= 0.5 * count
    return score


def _cyrillic(chars: Counter[str], alone: float) -> float:
    lower = sum(count for char, count in chars.items() if "а" <= char <= "џ")
    upper = sum(count for char, count in chars.items() if "Ё" <= char <= "Я")
    other = sum(chars.values()) - lower - upper
    marks = sum(chars[char] for char in _TYPOGRAPHY | {"№", "\xa0"})
    if alone > 0.7:
        return -0.5 * (lower + upper + other)
    # Text is mostly small letters; the rival encoding swaps the cases.
    return lower + (0.3 * upper if upper < lower else -upper) + 0.5 * marks - 0.5 * other


def _western(chars: Counter[str], alone: float) -> float:
    score = 0.0
    for char, count in chars.items():
        if char in _TYPOGRAPHY or char == "\xa0":
            score += 0.7 * count
        elif "à" <= char <= "ÿ" or char in "œßšž":
            score += 0.8 * count
        elif "À" <= char <= "Þ" or char in "ŒŠŽ":
            score += 0.2 * count
        else:
            score -= 0.5 * count
    return score if alone > 0.5 else score - 0.5 * sum(chars.values())


_CANDIDATES: dict[str, Weigh] = {
    "utf-8": lambda chars, alone: 1.0 * sum(chars.values()),
    "cp932": _japanese,
    "euc_jp": _japanese,
    "gb18030": _chinese("gb2312", 0xB0, 0xD7),
    "big5": _chinese("big5", 0xA4, 0xC6),
    "cp949": _korean,
    "cp1251": _cyrillic,
    "koi8-r": _cyrillic,
    "cp1252": _western,
}


class Decoder:
    """Decodes a stream block by block, whatever its length.

    With `auto`, ASCII is passed on until the first block that holds more decides. A byte that cannot be
    decoded becomes one of U+DC80 to U+DCFF, which `mend` counts.
    """

    def __init__(self, stream: BinaryIO, encoding: str = "auto") -> None:
        self.stream, self.encoding = stream, encoding
        self.read_bytes = 0

    def blocks(self) -> Iterator[str]:
        """Yields the text in blocks."""
        decoder: codecs.IncrementalDecoder | None = None
        first = True
        while block := self.stream.read(BLOCK):
            self.read_bytes += len(block)
            if decoder is None:
                if self.encoding == "auto" and block.isascii() and not _needs_care(block):
                    first = False
                    yield block.decode("ascii")
                    continue
                if self.encoding == "auto":
                    self.encoding = detect(block, whole=len(block) < BLOCK)
                    if not first and self.encoding.startswith("utf-16"):
                        self.encoding = "utf-8"
                wide = self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
                decoder = codecs.getincrementaldecoder(self.encoding)(
                    "replace" if wide else "surrogateescape"
                )
            yield decoder.decode(block)
        if decoder is not None:
            rest = decoder.decode(b"", final=True)
            if rest:
                yield rest


def _needs_care(block: bytes) -> bool:
    """Says whether seven-bit bytes may be something else than ASCII."""
    return b"\x1b" in block or b"\0" in block


@dataclass
class Mends:
    """What was mended in a text."""

    undecodable: int = 0
    surrogates: int = 0
    zeros: int = 0


def mend(text: str) -> tuple[str, Mends]:
    """Replaces undecodable bytes and lone surrogates by U+FFFD, drops NUL, and counts them."""
    mends = Mends()
    if "\0" in text:
        mends.zeros = text.count("\0")
        text = text.replace("\0", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        mends.undecodable = len(_UNDECODED.findall(text))
        text, replaced = _LONE.subn("\ufffd", text)
        mends.surrogates = replaced - mends.undecodable
    return text, mends


def known_encoding(name: str) -> bool:
    """Says whether Python knows an encoding by this name."""
    try:
        return name == "auto" or codecs.lookup(name)._is_text_encoding
    except LookupError:
        return False
