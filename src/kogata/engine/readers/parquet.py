"""Parquet: one document a row, read column by column in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.engine.files import InputFile, Unreadable
from kogata.engine.readers._common import LOOK, ReadOptions, Sample, text_column
from kogata.engine.readers.jsonl import rows_to_documents

SUFFIXES = (".parquet",)

BATCH = 256
"""Rows held at a time."""


def read(file: InputFile, options: ReadOptions, account: Account) -> Iterator[Document]:
    """Yields one document a row."""
    with _open(file) as opened:
        column = _text_column(opened, file, options)
        wanted = [column, *([options.columns["id"]] if "id" in options.columns else [])]
        wanted += [
            name for name in options.numbers if name in opened.schema_arrow.names and name not in wanted
        ]
        chosen = ReadOptions(columns={**options.columns, "text": column}, numbers=options.numbers)
        found = enumerate(_rows(opened, wanted, file), 1)
        for document in rows_to_documents(found, file, chosen, account):
            account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
            yield document


def rows(file: InputFile, options: ReadOptions, account: Account) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the numbered rows, all columns."""
    with _open(file) as opened:
        for number, row in enumerate(_rows(opened, list(opened.schema_arrow.names), file), 1):
            account.read_bytes += sum(len(str(value)) for value in row.values())
            yield number, row


def _open(file: InputFile) -> Any:
    import pyarrow
    import pyarrow.parquet

    if file.packed:
        raise Unreadable(
            "a parquet file inside another compression",
            where=str(file.path),
            expected="parquet, which is compressed inside",
            remedy=f"unpack it first (remove the {file.packed})",
        ).because("packed parquet")
    try:
        return pyarrow.parquet.ParquetFile(file.path)
    except pyarrow.ArrowException as error:
        raise Unreadable(
            "a parquet file is damaged", where=str(file.path), found=str(error).split("\n")[0]
        ).because("damaged file") from None


def _rows(opened: Any, columns: list[str], file: InputFile) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        for batch in opened.iter_batches(BATCH, columns=columns):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise Unreadable(
            "a parquet file is damaged", where=str(file.path), found=str(error).split("\n")[0]
        ).because("damaged file") from None


def _text_column(opened: Any, file: InputFile, options: ReadOptions) -> str:
    names = list(opened.schema_arrow.names)
    first = next(opened.iter_batches(20), None) if opened.metadata.num_rows else None
    return text_column(names, first.to_pylist() if first is not None else [], options, file)


def sample(file: InputFile, options: ReadOptions, look: int = LOOK) -> Sample:
    """Looks at the metadata and the first rows."""
    with _open(file) as opened:
        column = _text_column(opened, file, options)
        metadata = opened.metadata
        whole = 0
        for group in range(metadata.num_row_groups):
            parts = metadata.row_group(group)
            for number in range(parts.num_columns):
                part = parts.column(number)
                if part.path_in_schema.split(".")[0] == column:
                    whole += part.total_uncompressed_size
        first = next(opened.iter_batches(20, columns=[column]), None) if metadata.num_rows else None
    seen = first.to_pylist() if first is not None else []
    text = "\n".join(row[column] for row in seen if isinstance(row[column], str))
    size = len(text.encode("utf-8", "surrogatepass"))
    return Sample(
        read=max(1, size),
        documents=len(seen),
        bytes=size,
        characters=len(text),
        text=text,
        rows=metadata.num_rows,
        # Lengths and levels are in it too, 4 bytes a row; repeated texts are stored once.
        whole_bytes=max(0, whole - 4 * metadata.num_rows),
    )


def count_rows(file: InputFile, options: ReadOptions) -> float:
    """Gives the rows that the file says it has."""
    with _open(file) as opened:
        return float(opened.metadata.num_rows)
