"""Texts that a family compares with: files the user names, or edited text that comes with Kogata."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files

from kogata.core.errors import DataError
from kogata.core.stage import Account

EDITED = ("en", "ja")
"""Languages of the edited text that comes with Kogata."""


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


def edited_texts(spoken: Sequence[str], where: str) -> list[str]:
    """Gives the edited texts that come with Kogata, as many of each language as documents are in it.

    Args:
        spoken: the language of each document.
        where: names the setting.

    Raises:
        DataError: no document is in a language there are texts of.
    """
    content = (files("kogata") / "data" / "edited_texts.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(content).decode("utf-8").split("\n") if line]
    there = {name: [row["text"] for row in rows if row["language"] == name] for name in EDITED}
    heard = Counter(name for name in spoken if name in there)
    if not heard:
        raise DataError(
            "no edited texts for the languages of this corpus come with Kogata",
            where=where,
            found=", ".join(name for name, _ in Counter(spoken).most_common(3)),
            expected=f"documents in {' or '.join(EDITED)}",
            remedy="name texts of your own: positives: good-texts/*.txt",
        )
    most = min(len(there[name]) / count for name, count in heard.items())
    chosen = []
    for name, count in heard.items():
        take = max(1, round(most * count))
        chosen += [there[name][at * len(there[name]) // take] for at in range(take)]
    return chosen
