"""HTML files, one page each."""

from __future__ import annotations

from collections.abc import Iterator

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable, binary_reason
from kogata.engine.web.page import Page


def read_pages(file: InputFile, most: int, account: Account) -> Iterator[Page]:
    """Yields the one page of a file.

    Args:
        file: HTML, plain, gz or zst.
        most: bytes of the largest page.
        account: where a page that is too large or empty is counted.

    Raises:
        Unreadable: the file is damaged, or something else than a page.
    """
    with file.open() as stream:
        content = stream.read(most + 1)
    account.read += 1
    account.read_bytes += len(content)
    reason = binary_reason(content[: 2**16])
    if reason and b"<" not in content[:1024]:
        raise Unreadable("this is no page", where=str(file.path), found=reason, expected="HTML").because(
            "binary file"
        )
    named = Document(file.name, "", source=file.name)
    if len(content) > most:
        account.reject("page too large", named, f"more than {most} bytes")
    elif not content.strip():
        account.reject("empty page", named)
    else:
        yield Page(id=file.name, source=file.name, content=content)
