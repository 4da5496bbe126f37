"""WARC records and pages made up for tests."""

from __future__ import annotations

PROSE = (
    "The kettle sang on the hob while the rain went on, and nobody spoke of the letter that had come. "
    "At last the old man rose, lit his pipe, and said that the road to the sea was long but not hard. "
)
JAPANESE = (
    "道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、雨脚が杉の密林を白く染めながら、"
    "すさまじい早さで麓から私を追って来た。私は二十歳、高等学校の制帽をかぶっていた。"
)


def page(text: str = PROSE * 3, head: str = "") -> str:
    """Builds a page with a menu and a main part."""
    menu = "".join(f'<li><a href="/{word}">{word}</a></li>' for word in ("Home", "News", "Contact", "About"))
    return (
        f"<!doctype html><html><head>{head}<title>T</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<main><article><p>{text}</p></article></main><footer>© 2020 Example</footer></body></html>"
    )


def response(
    body: bytes | str,
    url: str = "http://example.org/a",
    status: str = "200 OK",
    kind: str = "response",
    headers: str = "Content-Type: text/html; charset=utf-8",
) -> bytes:
    """Builds one record."""
    content = body.encode() if isinstance(body, str) else body
    block = content
    said = "text/plain"
    if kind == "response":
        block = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + content
        said = "application/http; msgtype=response"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{len(url):012d}>\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: 2020-08-08T17:27:41Z\r\nContent-Type: {said}\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"
