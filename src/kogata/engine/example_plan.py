"""What reading examples will give, before it is done: exact where the files are small, else by a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kogata.core.stage import Facts
from kogata.engine.example_reading import Gathered, Paths, Reading, gather
from kogata.engine.examples import ExampleTally
from kogata.engine.files import InputFile
from kogata.engine.hub import PREFIX, hub_size
from kogata.engine.text import input_files

WHOLE_BYTES = 8 * 2**20
"""Files of no more than this, unpacked, are read whole for the plan."""
SAMPLE_BYTES = 2**20
"""Text looked at of larger ones."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Facts to come, and what reading will take."""

    facts: Facts
    raw_bytes: int
    files: int


_seen: dict[tuple[str, ...], Planned] = {}
"""A plan asks several times; a file's time and size say whether it is still the same."""


def plan_examples(reading: Reading) -> Planned:
    """States the facts of the examples artifact to come.

    Raises:
        DataError: as `gather`.
    """
    paths = [*_listed(reading.path), *_listed(reading.heldout), *_listed(reading.test)]
    hubs = [path for path in paths if path.startswith(PREFIX)]
    files = [file for path in paths if not path.startswith(PREFIX) for file in input_files(path)]
    stamps = [(file.path.stat().st_mtime_ns, file.path.stat().st_size) for file in files]
    key = (repr(reading), *(f"{file.path} {stamp}" for file, stamp in zip(files, stamps, strict=True)))
    if key not in _seen:
        _seen[key] = _of_hub(hubs, reading) if hubs else _of_files(files, reading)
    return _seen[key]


def _listed(paths: float | Paths) -> Sequence[str]:
    if isinstance(paths, float | int):
        return []
    return [paths] if isinstance(paths, str) else paths


def _of_files(files: list[InputFile], reading: Reading) -> Planned:
    raw = sum(file.raw_bytes() for file in files)
    whole = raw <= WHOLE_BYTES
    found = gather(reading, most_bytes=None if whole else SAMPLE_BYTES)
    facts = facts_of(found)
    if not whole:
        scale = max(1.0, _rows_in(files, found) / max(1, found.rows))
        for counts in facts["splits"].values():
            for name in ("examples", "bytes", "characters", "answer_bytes"):
                counts[name] = round(counts[name] * scale)
    return Planned(facts=facts, raw_bytes=raw, files=len(files))


def _rows_in(files: list[InputFile], found: Gathered) -> float:
    """Estimates the rows of files from the size of those looked at."""
    rows = 0.0
    looked = sum(len("\n".join(example.texts()).encode()) for _, example in found.examples)
    each = max(1.0, looked / max(1, found.rows))
    for file in files:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            rows += pyarrow.parquet.read_metadata(file.path).num_rows
        else:
            # Names, quotes and commas of a JSON line take about forty bytes, those of a table a few.
            rows += file.raw_bytes() / (each + (40 if "json" in file.suffix else 4))
    return rows


def _of_hub(paths: list[str], reading: Reading) -> Planned:
    sizes = [hub_size(path) or (1, 0) for path in paths]
    rows, size = sum(item[0] for item in sizes), sum(item[1] for item in sizes)
    counts = {"examples": rows, "bytes": size, "characters": size, "answer_bytes": size // 2}
    facts: Facts = {"splits": {"train": counts | {"longest_bytes": 0}}, "language_hint": "und"}
    return Planned(facts=facts | {"form": "mixed", "columns": dict(reading.columns)}, raw_bytes=size, files=1)


def facts_of(found: Gathered) -> Facts:
    """Gives the facts of what was read, as `write_examples` will."""
    tally = ExampleTally()
    for split, example in found.examples:
        tally.add(example, split)
    return tally.facts() | {"columns": found.mapped()}
