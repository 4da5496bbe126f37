"""Pages from archives: what is damaged is left out with a reason, what lies behind it is read."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard
from web_archives import JAPANESE, PROSE, page, response

from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.web.charset import decode_page
from kogata.engine.web.http import TooLarge, dechunk, parse_head, unpack
from kogata.engine.web.page import Page
from kogata.engine.web.pages import pages_of

pytest.importorskip("fastwarc")


def read(
    folder: Path, data: bytes, name: str = "a.warc.gz", most: int = 100_000, named: bool = False
) -> tuple[list[Page], Account]:
    path = folder / name
    path.write_bytes(data)
    account = Account()
    return list(pages_of([InputFile(path, name)], most, account, named=named, seen=set())), account


def urls(count: int) -> list[str]:
    return [f"http://example.org/{number}" for number in range(count)]


def members(count: int) -> list[bytes]:
    return [gzip.compress(response(page(f"{PROSE} Number {url}."), url), mtime=0) for url in urls(count)]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
@pytest.mark.parametrize("packed", ["plain", "members", "one member"])
def test_reads_whatever_the_name_says(tmp_path: Path, name: str, packed: str) -> None:
    data = b"".join(members(5))
    if packed != "members":
        data = gzip.decompress(data)
    if packed == "one member":
        data = gzip.compress(data)
    pages, account = read(tmp_path, data, name)
    assert [found.url for found in pages] == urls(5) and not account.reasons
    assert (
        pages[2].id == f"{name}:3" and pages[2].date == "2020-08-08T17:27:41Z" and pages[2].charset == "utf-8"
    )
    assert pages[2].content.endswith(b"</html>") and account.read == 5


def test_reads_zst(tmp_path: Path) -> None:
    data = zstandard.ZstdCompressor().compress(gzip.decompress(b"".join(members(3))))
    assert len(read(tmp_path, data, "a.warc.zst")[0]) == 3


def test_damaged_gz_costs_its_own_records_only(tmp_path: Path) -> None:
    parts = members(6)
    parts[2] = parts[2][:60] + bytes(byte ^ 0x5A for byte in parts[2][60:120]) + parts[2][120:]
    pages, account = read(tmp_path, b"".join(parts))
    assert [found.url for found in pages] == [url for at, url in enumerate(urls(6)) if at != 2]
    assert account.reasons["damaged gz data"] == 1


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_that_ends_too_early(tmp_path: Path, packed: bool) -> None:
    data = b"".join(members(4))
    data = data[:-100] if packed else gzip.decompress(data)[:-100]
    pages, account = read(tmp_path, data)
    assert [found.url for found in pages] == urls(3)
    assert account.reasons["cut-off record"] == 1
    assert account.reasons.get("damaged gz data") == (1 if packed else None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.replace(b"WARC/1.0", b"WURC/9.9", 1),
        lambda record: record.replace(b"Content-Length", b"Content-Lost", 1),
        lambda record: record[:300] + record[500:],
        lambda record: b"WARC/1.0\r\n" + b"x" * 300_000 + record,
    ],
    ids=["head", "no length", "hole", "endless line"],
)
def test_a_damaged_record_is_skipped(tmp_path: Path, damage) -> None:
    records = [gzip.decompress(member) for member in members(5)]
    records[2] = damage(records[2])
    pages, account = read(tmp_path, b"".join(records), "a.warc")
    found = [found.url for found in pages]
    assert {urls(5)[0], urls(5)[1], urls(5)[4]} <= set(found) and len(found) == len(set(found))
    assert 1 <= sum(account.reasons.values()) <= 2 and len(found) >= 3


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (response(page(), status="404 Not Found"), "HTTP status 404"),
        (response(page(), headers="Content-Type: image/png"), "not HTML"),
        (response("x", url="dns:example.org"), "no web page"),
        (response("x", kind="resource"), "not HTML"),
        (response("  \n "), "empty page"),
        (response("<p>" + "a" * 200_000), "page too large"),
        (response(gzip.compress(b"\0" * 10**6), headers="Content-Type: text/html\r\nContent-Encoding: gzip"),
         "page too large"),
        (response(page()).replace(b"HTTP/1.1 200", b"ICY/1.1 2000"), "no HTTP response"),
        (response(page()) + response(page()), "URL seen before"),
    ],
)  # fmt: skip
def test_what_is_no_page_has_its_reason(tmp_path: Path, record: bytes, reason: str) -> None:
    pages, account = read(tmp_path, record + response(page(), url="http://example.org/last"), "a.warc")
    assert pages[-1].url.endswith("/last") and len(pages) == 1 + (reason == "URL seen before")
    assert account.reasons == {reason: 1}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_page_of_a_hundred_megabytes_is_passed_over_without_holding_it(
    tmp_path: Path, chunked: bool
) -> None:
    size = 100 * 2**20
    body = b"<p>" + b"a" * size
    headers = "Content-Type: text/html"
    if chunked:
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        headers += "\r\nTransfer-Encoding: chunked"
    path = tmp_path / "a.warc.gz"
    last = gzip.compress(response(page(), url="http://example.org/last"))
    path.write_bytes(gzip.compress(response(body, headers=headers), 1) + last)
    del body
    account = Account()
    tracemalloc.start()
    (found,) = pages_of([InputFile(path, "a.warc.gz")], 2_000_000, account, named=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.url.endswith("/last") and account.reasons == {"page too large": 1}
    assert peak < size / 4


def test_wet_is_text_and_requests_are_nothing(tmp_path: Path) -> None:
    data = response("GET / HTTP/1.1", kind="request") + response(JAPANESE, kind="conversion")
    ((found,), account) = read(tmp_path, data, "a.warc.wet")
    assert not found.html and found.content.decode() == JAPANESE and account.read == 1


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.arc", b"filedesc://a.arc 127.0.0.1 20140216050221 text/plain 75\n1 0 X\n", "ARC archive"),
        ("a.warc.gz", b"nothing of the kind\n" * 100, "no WARC archive"),
        ("a.warc.gz", gzip.compress(b"\0" * 10**6), "no WARC archive"),
        ("a.html", b"\x89PNG\0\0\0" * 100, "binary file"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    pages, account = read(tmp_path, data, name)
    assert not pages and account.reasons == {reason: 1}
    with pytest.raises(Unreadable):
        read(tmp_path, data, name, named=True)


def test_what_expands_beyond_measure_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kogata.engine.files.EXPANSION_FREE", 10**6)
    data = gzip.compress(response("<p>" + "\0" * 5_000_000) + response(page()))
    pages, account = read(tmp_path, data)
    assert not pages and account.reasons == {"page too large": 1, "expands beyond measure": 1}


# Charsets


@pytest.mark.parametrize(
    ("encoding", "name", "text"),
    [
        ("gb2312", "gb2312", "本报讯：广东省人民政府昨天公布了新的规定，各地要认真执行。" * 3),
        ("cp932", "Shift_JIS", JAPANESE),
        ("cp932", "x-sjis", "①②③ と髙﨑さん。" + JAPANESE),
        ("euc_jp", "EUC-JP", JAPANESE),
        ("iso2022_jp", "ISO-2022-JP", JAPANESE),
        ("cp1251", "windows-1251", "Стратегия пожарной безопасности — услуги для предприятий и складов."),
        ("koi8-r", "koi8-r", "Стратегия пожарной безопасности, услуги для предприятий и складов."),
        ("cp949", "euc-kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
        ("big5", "big5", "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。" * 2),
        ("cp1252", "ISO-8859-1", "“Größe” – schöne Öfen, été à Paris."),
        ("utf-8", "iso-8859-1", JAPANESE + " été"),
        ("utf-16", "utf-16", PROSE + JAPANESE),
    ],
)
@pytest.mark.parametrize("where", ["served", "meta", "nowhere"])
def test_charsets(encoding: str, name: str, text: str, where: str) -> None:
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={name}">' if where == "meta" else ""
    html = page(text, head).replace("©", "(c)")
    content = html.encode(encoding)
    if where == "nowhere" and encoding == "big5":
        pytest.skip("too short to tell from its bytes alone")
    found, _ = decode_page(content, name if where == "served" else "")
    assert text in found


def test_a_false_charset_does_not_win() -> None:
    html = page(JAPANESE * 3, '<meta charset="utf-8">').replace("©", "")
    assert JAPANESE in decode_page(html.encode("cp932"), "utf-8")[0]
    assert JAPANESE in decode_page(html.encode("euc_jp"), "iso-8859-1")[0]
    assert decode_page(html.encode(), "no-such-charset")[1] == "utf-8"
    wide = page(JAPANESE, '<meta charset="utf-16">')
    assert decode_page(wide.encode())[0] == wide and decode_page(wide.encode(), "utf-16")[0] == wide


def test_one_lost_byte_does_not_change_the_charset() -> None:
    content = page(JAPANESE * 3).encode("utf-8")
    found, name = decode_page(content.replace("杉".encode(), b"\xe6\x9d", 1), "utf-8")
    assert name == "utf-8" and found.count("天城峠") == 3


# HTTP


def test_chunks_right_and_wrong() -> None:
    assert dechunk(b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n") == (b"hello world", True)
    assert dechunk(b"<html>plain</html>") == (b"<html>plain</html>", False)
    assert dechunk(b"5\r\nhello\r\nzz\r\nrest") == (b"hello\r\nzz\r\nrest"[:5] + b"\r\nzz\r\nrest", False)
    assert dechunk(b"ff\r\nshort") == (b"short", False)


def test_packed_bodies_and_false_claims() -> None:
    assert unpack(gzip.compress(b"page"), "gzip", 10) == b"page"
    assert unpack(zlib.compress(b"page"), "deflate", 10) == b"page"
    assert unpack(b"<html>", "gzip", 10) == b"<html>" == unpack(b"<html>", "br", 10)
    with pytest.raises(TooLarge):
        unpack(gzip.compress(b"page" * 10), "x-gzip", 10)


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_long_bodies_of_other_codings(coding: str) -> None:
    body = JAPANESE.encode() * 2000
    if coding == "br":
        packed = pytest.importorskip("brotli").compress(body, quality=1)
    else:
        packed = zstandard.ZstdCompressor().compress(body)
    assert unpack(packed, coding, len(body)) == body
    with pytest.raises(TooLarge):
        unpack(packed, coding, len(body) - 1)
    assert unpack(b"<html>", coding, 100) == b"<html>"


def test_a_packed_page_that_is_damaged_gives_what_came_before() -> None:
    body = "".join(f"{at * 7919 % 10_007} words of {at**3}. " for at in range(9000)).encode()
    packed = bytearray(gzip.compress(body))
    packed[-len(packed) // 3] ^= 0xFF
    found = unpack(bytes(packed), "gzip", 10**7)
    assert len(found) > len(body) / 3 and found[:50_000] == body[:50_000]


def test_heads_as_servers_send_them() -> None:
    block = b"HTTP/1.0 200\nContent-Type: TEXT/HTML;charset='Shift_JIS'\nbroken\n\nbody"
    found = parse_head(block)
    assert found is not None and found[0].status == 200 and block[found[1] :] == b"body"
    assert found[0].media_type == "text/html" and found[0].charset == "Shift_JIS"
    assert parse_head(b"<html>") is None
