"""Texts that a family compares with: files the user names."""

from __future__ import annotations

from collections.abc import Iterator

from kogata.core.errors import DataError
from kogata.core.stage import Account


def texts_of(paths: str | list[str], column: str | None, where: str) -> Iterator[str]:
    """Yields the texts of files of any format data.read knows.

    Raises:
        DataError: nothing is there, or no column can be told; `where` names the setting.
    """
    from kogata.engine.readers._common import ReadOptions
    from kogata.engine.text import documents_of, input_files

    options = ReadOptions(columns={"text": column} if column else {})
    found = False
    try:
        for document in documents_of(input_files(paths), options, Account(), named=True):
            found = True
            yield document.text
    except DataError as error:
        raise DataError(
            error.what,
            where=f"{error.where}, named by {where}",
            found=error.found,
            expected=error.expected,
            remedy=f"add column: NAME beside {where}" if "column" in error.what else error.remedy,
        ) from None
    if not found:
        raise DataError(
            "files without any text",
            where=where,
            found=", ".join([paths] if isinstance(paths, str) else paths),
        )
