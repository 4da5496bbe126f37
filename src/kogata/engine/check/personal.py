"""Personal data that the model would learn by heart: mail, phone, postcode, card numbers, names before 様."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from kogata.engine.check._common import Examined, Finding, of_rows
from kogata.engine.examples import Example

CHEAP, NEEDS = True, None

_DASH = r"[-‐‑‒–—―−]"
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_POSTCODE = re.compile(rf"〒\s?\d{{3}}{_DASH}?\d{{4}}|(?<![\d-])\d{{3}}{_DASH}\d{{4}}(?![\d-])")
_PHONE = re.compile(
    rf"(?<![\d.-])(?:0\d{{1,4}}{_DASH}\d{{1,4}}{_DASH}\d{{3,4}}|0\d{{1,4}}\(\d{{1,4}}\)\d{{4}}"
    rf"|\(0\d{{1,4}}\)\s?\d{{1,4}}{_DASH}\d{{4}}|0[5789]0\d{{8}}"
    rf"|\+\d{{1,3}}(?:[ .]|{_DASH})?(?:\(?\d{{1,4}}\)?(?:[ .]|{_DASH})?){{2,4}}\d{{2,4}}"
    rf"|\(?[2-9]\d{{2}}\)?(?:[ .]|{_DASH})[2-9]\d{{2}}(?:[ .]|{_DASH})\d{{4}})(?!\d)"
)
_JAPANESE = re.compile("[ぁ-んァ-ヴ]")
_CARD = re.compile(rf"(?<![\d.])[3-6]\d{{3}}(?:(?:[ ]|{_DASH})?\d){{10,12}}(?![\d.])")
_NAME = re.compile(
    r"([一-龥々ヶ]{1,8}(?:[ 　][一-龥々ヶぁ-んァ-ヴー]{1,6}|[ァ-ヴー]{0,6})|[ァ-ヴー・]{2,12})"
    r"[ 　]?様(?![々式子相態])"
)
_NOT_NAMES = tuple(
    "客 皆 何 貴 大 神 王 奥 殿 仏 姫 旦那 仕 同 模 多 一 有 異 両 各位 担当者 責任者 代表者 御社 貴社 会員 "
    "ユーザー ユーザ 利用者 購入者 保護者 患者 取引先 店舗 得意 子 方 親 業者 企業 生徒 顧客 オーナー "
    "ゲスト メンバー 住民 受講者 参加者 契約者 申込者 社員 店長 先生 家族 株主 スタッフ".split()
)
"""Words before 様 that name nobody, and the first parts of words such as 仕様."""


def check(examined: Examined) -> list[Finding]:
    """Counts rows by kind; what is shown is half hidden."""
    rows: dict[str, list[dict[str, str]]] = {}
    counts: dict[str, int] = {}
    for _, example in examined.examples:
        seen: dict[str, str] = {}
        for kind, text in personal(example):
            seen.setdefault(kind, text)
        for kind, text in seen.items():
            counts[kind] = counts.get(kind, 0) + 1
            listed = rows.setdefault(kind, [])
            if len(listed) < 20:
                listed.append({"source": example.source, "found": hidden(text)})
    total = len(examined.examples)
    return [
        Finding(
            check="personal",
            name=f"personal: {kind}",
            level="warning",
            what=of_rows(count, "seems", "seem", whole=total) + f" to hold {_CALLED[kind]}, "
            f"first {rows[kind][0]['source']}: {rows[kind][0]['found']}",
            remedy="replace it by a stand-in, if it is of a real person: a model can repeat what it learned",
            count=count,
            rows=rows[kind],
        )
        for kind, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


_CALLED = {
    "mail": "a mail address",
    "phone": "a phone number",
    "postcode": "a Japanese postcode",
    "card": "a card number",
    "name": "a person's name (before 様)",
}


def personal(example: Example) -> Iterator[tuple[str, str]]:
    """Yields (kind, text) of what looks personal in a row."""
    text = unicodedata.normalize("NFKC", "\n".join(example.texts()))
    if "@" in text:
        yield from (("mail", match[0]) for match in _MAIL.finditer(text))
    if any(char.isdigit() for char in text):
        cards = [match for match in _CARD.finditer(text) if _luhn(match[0])]
        yield from (("card", match[0]) for match in cards)
        inside = [match.span() for match in cards]
        phones = [match for match in _PHONE.finditer(text) if not _within(match.start(), inside)]
        yield from (("phone", match[0]) for match in phones)
        inside += [match.span() for match in phones]
        # Without its mark, three digits and four are a postcode only where Japanese is written.
        marked = not _JAPANESE.search(text)
        found = (match for match in _POSTCODE.finditer(text) if not marked or "〒" in match[0])
        codes = (match for match in found if not _within(match.start(), inside))
        yield from (("postcode", match[0]) for match in codes)
    if "様" in text:
        for match in _NAME.finditer(text):
            name = match[1].strip()
            if not name.endswith(_NOT_NAMES) and not name.startswith(("お", "ご", "御")):
                yield "name", f"{name}様"


def _within(place: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= place < stop for start, stop in spans)


def _luhn(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()][::-1]
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 2


def hidden(text: str) -> str:
    """Shows the beginning of something personal, not all of it."""
    keep = max(1, min(3, len(text) // 3))
    return text[:keep] + "…" + (text[-1] if text.endswith("様") else "")
