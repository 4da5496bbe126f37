"""What reading examples will give, before it is done: exact where the files are small, else by a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kogata.core.stage import Facts
from kogata.engine.example_reading import Gathered, Paths, Reading, gather
from kogata.engine.example_split import rows_wanted
from kogata.engine.examples import ExampleTally
from kogata.engine.files import InputFile
from kogata.engine.hub import PREFIX, hub_size
from kogata.engine.readers._common import ReadOptions
from kogata.engine.text import input_files, readers

WHOLE_BYTES = 8 * 2**20
"""Files of no more than this, unpacked, are read whole for the plan."""
SAMPLE_BYTES = 2**20
"""Text looked at of larger ones, shared among the files looked into."""
SAMPLED_FILES = 12
COUNTS = ("examples", "bytes", "characters", "answer_bytes", "pieces", "wide_letters")


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
    files = _files(paths)
    stamps = [(file.path.stat().st_mtime_ns, file.path.stat().st_size) for file in files]
    key = (repr(reading), *(f"{file.path} {stamp}" for file, stamp in zip(files, stamps, strict=True)))
    if key not in _seen:
        raw = sum(file.raw_bytes() for file in files)
        if hubs:
            _seen[key] = _of_hub(hubs, reading)
        else:
            facts = facts_of(gather(reading)) if raw <= WHOLE_BYTES else _sampled(reading)
            _seen[key] = Planned(facts=facts, raw_bytes=raw, files=len(files))
    return _seen[key]


def _listed(paths: float | Paths) -> Sequence[str]:
    if isinstance(paths, float | int):
        return []
    return [paths] if isinstance(paths, str) else paths


def _files(paths: Sequence[str]) -> list[InputFile]:
    return [file for path in paths if not path.startswith(PREFIX) for file in input_files(path)]


def _sampled(reading: Reading) -> Facts:
    """Reads the beginnings of some files and counts on from there; shares are taken of the whole."""
    named: dict[str, Any] = {"path": reading.path, "heldout": reading.heldout, "test": reading.test}
    groups = {name: _files(_listed(paths)) for name, paths in named.items()}
    chosen = {name: files[:: -(-len(files) // SAMPLED_FILES) or 1] for name, files in groups.items()}
    looked = sum(map(len, chosen.values()))
    changes = {name: [str(file.path) for file in files] or 0.0 for name, files in chosen.items()}
    found = gather(replace(reading, **changes), most_bytes=SAMPLE_BYTES // looked)
    facts = facts_of(found)
    usable = sum(len(rows) for rows in found.splits.values()) / max(1, found.rows)
    splits: dict[str, dict[str, int]] = {}
    for name, files in groups.items():
        if not files:
            continue
        counts = facts["splits"]["train" if name == "path" else name]
        rows = usable * _rows_in(files, chosen[name], reading)
        splits["train" if name == "path" else name] = _scaled(counts, rows)
    train = splits["train"]
    for name in ("heldout", "test"):
        share = named[name]
        if isinstance(share, float | int) and share:
            splits[name] = _scaled(train, rows_wanted(share, train["examples"]))
    shared = [splits[name]["examples"] for name in splits if name != "train" and not groups[name]]
    splits["train"] = _scaled(train, train["examples"] - sum(shared))
    order = [name for name in ("train", "heldout", "test") if name in splits]
    return facts | {"splits": {name: splits[name] for name in order}}


def _scaled(counts: dict[str, int], rows: float) -> dict[str, int]:
    scale = rows / max(1, counts["examples"])
    return {name: round(value * scale) if name in COUNTS else value for name, value in counts.items()}


def _rows_in(files: list[InputFile], chosen: list[InputFile], reading: Reading) -> float:
    """Estimates the rows of files from some of them: from their beginnings, or as their format says."""
    options = ReadOptions(encoding=reading.encoding, split_on=reading.split_on)
    known = readers()
    rows = 0.0
    for file in chosen:
        count = getattr(known[file.suffix], "count_rows", None)
        rows += 1.0 if count is None else count(file, options)
    total = sum(file.raw_bytes() for file in files)
    return rows * total / max(1, sum(file.raw_bytes() for file in chosen))


def _of_hub(paths: list[str], reading: Reading) -> Planned:
    sizes = [hub_size(path) or (1, 0) for path in paths]
    rows, size = sum(item[0] for item in sizes), sum(item[1] for item in sizes)
    counts = {"examples": rows, "bytes": size, "characters": size, "answer_bytes": size // 2}
    facts: Facts = {"splits": {"train": counts | {"longest_bytes": 0}}, "language_hint": "und"}
    return Planned(facts=facts | {"form": "mixed", "columns": dict(reading.columns)}, raw_bytes=size, files=1)


def facts_of(found: Gathered) -> Facts:
    """Gives the facts of what was read, as the writer of examples will."""
    tally = ExampleTally()
    for split, example in found.examples:
        tally.add(example, split)
    return tally.facts() | {"columns": found.mapped()}
