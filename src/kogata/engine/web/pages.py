"""Pages of files: each file by its reader, each URL once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.web import html_files, warc
from kogata.engine.web.page import SUFFIXES_HTML, Page


def pages_of(
    files: Iterable[InputFile], most: int, account: Account, *, named: bool, seen: set[int] | None = None
) -> Iterator[Page]:
    """Yields the pages of files; what is none is counted with its reason.

    Args:
        files: archives and HTML files.
        most: bytes of the largest page.
        account: where pages and reasons are counted.
        named: the user named these very files: one that cannot be read is an error, not a reason.
        seen: hashes of URLs met before; a second page of a URL goes. None lets all pass.
    """
    import xxhash

    for file in files:
        reader = html_files if file.suffix in SUFFIXES_HTML else warc
        try:
            for page in reader.read_pages(file, most, account):
                if seen is not None and page.url:
                    name = xxhash.xxh3_64_intdigest(page.url.encode("utf-8", "surrogatepass"))
                    if name in seen:
                        account.reject(
                            "URL seen before", Document(page.id, "", source=file.name), page.url[:200]
                        )
                        continue
                    seen.add(name)
                yield page
        except Unreadable as error:
            if named:
                raise
            account.reject(error.reason, Document(file.name, "", source=file.name), error.found)
