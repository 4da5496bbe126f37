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
    account = Account()
    try:
        yield from (item.text for item in documents_of(input_files(paths), options, account, named=True))
    except DataError as error:
        raise DataError(
            error.what,
            where=f"{error.where}, named by {where}",
            found=error.found,
            expected=error.expected,
            remedy=f"add column: NAME beside {where}" if "column" in error.what else error.remedy,
        ) from None
    if not account.read:
        raise DataError(
            "files without any text",
            where=where,
            found=", ".join([paths] if isinstance(paths, str) else paths),
        )
