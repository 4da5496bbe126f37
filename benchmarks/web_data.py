"""Web pages and texts that benchmarks of extraction and deduplication run on, and WARC files made of them.

The folder (`--web`, or KOGATA_BENCH_WEB) holds, each part optional:

- `article-extraction-benchmark/`: `html/*.html.gz` and `ground-truth.json.gz` of
  scrapinghub/article-extraction-benchmark (MIT; the pages are their publishers');
- `docs-html-pages.jsonl.gz`: pages of free manuals: id, lang, html, main_text;
- `c4-sample.jsonl.gz`: documents of C4: id, text;
- `langid/udhr.jsonl.gz`: the Universal Declaration of Human Rights: lang, lines.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common

OPTION = ("--web", {"help": "the folder that benchmarks/web_data.py describes; or KOGATA_BENCH_WEB"})


def web_folder(given: str | None) -> Path | None:
    """Gives the folder of web pages; None when there is none."""
    for place in (given, os.environ.get("KOGATA_BENCH_WEB"), common.ROOT.parent / "shared" / "data" / "web"):
        if place and Path(place).is_dir():
            return Path(place)
    return None


def found(path: Path | None, what: str) -> bool:
    """Says whether a part is there; tells in one line when it is not."""
    if path is not None and path.exists():
        return True
    print(f"left out: {what} (needs {path or 'the folder of benchmarks/web_data.py'})", file=sys.stderr)
    return False


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a packed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def articles(web: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yields name, page and article text of the article benchmark."""
    place = web / "article-extraction-benchmark"
    truth = json.loads(gzip.decompress((place / "ground-truth.json.gz").read_bytes()))
    for name in sorted(truth):
        content = gzip.decompress((place / "html" / f"{name}.html.gz").read_bytes())
        yield name, content, truth[name].get("articleBody", "")


def all_pages(web: Path) -> list[tuple[str, bytes]]:
    """Lists name and content of every page there is."""
    pages: list[tuple[str, bytes]] = []
    if (web / "article-extraction-benchmark").is_dir():
        pages += [(f"articles.example/{name}", content) for name, content, _ in articles(web)]
    if (web / "docs-html-pages.jsonl.gz").is_file():
        pages += [
            (f"docs.example/{row['id']}", row["html"].encode())
            for row in rows(web / "docs-html-pages.jsonl.gz")
        ]
    return pages


def write_warc(path: Path, pages: Iterable[tuple[str, bytes]]) -> int:
    """Writes pages as responses, as Common Crawl does: a member of gz each, the type found by it beside."""
    count = 0
    with path.open("wb") as file:
        for name, content in pages:
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + content
            head = (
                "WARC/1.0\r\nWARC-Type: response\r\n"
                f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{count:012d}>\r\n"
                "WARC-Date: 2026-01-31T12:00:00Z\r\n"
                f"WARC-Target-URI: https://{name}\r\n"
                "WARC-Identified-Payload-Type: text/html\r\n"
                "Content-Type: application/http; msgtype=response\r\n"
                f"Content-Length: {len(block)}\r\n\r\n"
            )
            file.write(gzip.compress(head.encode() + block + b"\r\n\r\n", 6, mtime=0))
            count += 1
    return count


def write_rows(path: Path, texts: Iterable[tuple[str, str]]) -> int:
    """Writes texts with their names as packed JSON lines; gives how many."""
    count = 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as file:
        for name, text in texts:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            count += 1
    return count
