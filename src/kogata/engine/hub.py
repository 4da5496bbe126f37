"""Text data sets of the Hugging Face hub, through the `datasets` library where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kogata.core.artifact import Document
from kogata.core.errors import DataError, EnvironmentProblem
from kogata.core.stage import Account
from kogata.engine.files import InputFile
from kogata.engine.readers._common import ReadOptions
from kogata.engine.readers.jsonl import rows_to_documents

PREFIX = "hub:"


@dataclass(frozen=True)
class HubName:
    """A data set on the hub: `@` pins its revision, `:` names its part, `train` where none is named."""

    name: str
    revision: str | None
    part: str

    @staticmethod
    def parse(text: str) -> HubName:
        """Reads `hub:owner/name@revision:part`."""
        rest, _, part = text.removeprefix(PREFIX).removeprefix("//").partition(":")
        name, _, revision = rest.partition("@")
        if not name:
            raise DataError(
                "a data set without a name",
                where=text,
                expected="hub:owner/name, or hub:owner/name@revision:part",
            )
        return HubName(name, revision or None, part or "train")


def need_datasets(text: str) -> None:
    """Raises `EnvironmentProblem` when the `datasets` library is missing; imports nothing."""
    if find_spec("datasets") is None:
        raise EnvironmentProblem(
            "data sets of the hub need the `datasets` library",
            where=text,
            expected="the library `datasets`",
            remedy='pip install "kogata[datasets]", or download the files and give their path',
        )


def _load(text: str, function: str, **more: Any) -> Any:
    need_datasets(text)
    import datasets

    named = HubName.parse(text)
    try:
        return getattr(datasets, function)(named.name, revision=named.revision, **more)
    except Exception as error:
        raise DataError(
            "the data set cannot be had from the hub",
            where=text,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="check its name and the network; a gated one needs HF_TOKEN in the environment",
        ) from error


def read_hub(text: str, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields a data set's rows as documents, streamed."""
    for document in rows_to_documents(hub_rows(text), hub_file(text), options, account):
        account.read += 1
        account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
        yield document


def hub_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields a data set's numbered rows, streamed."""
    rows = _load(text, "load_dataset", split=HubName.parse(text).part, streaming=True)
    for number, row in enumerate(rows, 1):
        yield number, dict(row)


def hub_file(text: str) -> InputFile:
    """Gives what a data set is called where a file would have a name."""
    return InputFile(Path(text), f"{PREFIX}{HubName.parse(text).name}")


def hub_columns(text: str) -> list[str]:
    """Lists a data set's columns as the hub states them; empty when it does not."""
    return list(getattr(_load(text, "load_dataset_builder").info, "features", None) or ())


def hub_size(text: str) -> tuple[int, int] | None:
    """Gives a data set's documents and bytes as the hub states them; None when it does not."""
    named = HubName.parse(text)
    parts = _load(text, "load_dataset_builder").info.splits or {}
    part = parts.get(named.part)
    return None if part is None else (int(part.num_examples), int(part.num_bytes))
