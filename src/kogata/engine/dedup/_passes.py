"""Deduplication of a whole corpus: note, decide, write.

A kill costs the shard in hand while notes are taken or text is written; deciding starts over.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kogata.core.artifact import SPLITS, Document
from kogata.core.errors import DataError, Stopped
from kogata.core.stage import Account, Bench, Facts
from kogata.engine.dedup._notes import Method, Shard, note_shard, noted_elsewhere, shards_of
from kogata.engine.dedup._table import Notes, Table
from kogata.engine.pool import Spread
from kogata.engine.text import CorpusWriter, read_shard, reasons_table

CLUSTERS = "clusters.jsonl.zst"
SHOWN, SHOWN_MEMBERS = 3, 3
"""Of the largest groups, and of the documents left out of each, what the report names."""


def deduplicate(
    corpus: Path,
    earlier: Path | None,
    methods: Sequence[Method],
    memory_bytes: int,
    bench: Bench,
    processes: int = 1,
    spread: Spread | None = None,
) -> Facts:
    """Writes the corpus without its duplicates, and what duplicated what, into `bench.out`; gives its facts.

    Args:
        corpus: its folder.
        earlier: the folder of a corpus done before, if any.
        methods: what is looked for.
        memory_bytes: what deciding may hold at once.
        bench: of the run.
        processes: how many take notes and join bands.
        spread: hands both to a cluster instead.

    Raises:
        DataError: no training document is left.
        Stopped: someone asked to stop; the same command goes on.
    """

    def tick() -> None:
        if bench.stopping():
            raise Stopped("stopped while looking for duplicates", remedy="the same command goes on")

    shards = shards_of(corpus, earlier)
    folders = [bench.checkpoints / f"notes-{number:05d}" for number in range(len(shards))]
    missing = [at for at, folder in enumerate(folders) if not folder.is_dir()]
    tick()
    if processes > 1 or spread is not None:
        for _ in noted_elsewhere(shards, folders, missing, methods, processes, spread):
            tick()
            bench.progress(sum(folder.is_dir() for folder in folders), 2 * len(shards), unit="shards")
    else:
        for at in missing:
            note_shard(shards[at], methods, folders[at], tick)
            bench.progress(at + 1, 2 * len(shards), unit="shards")
    counts = [len(np.load(folder / "id-starts.npy", mmap_mode="r")) - 1 for folder in folders]
    table = Table([shard.role for shard in shards], counts, [method.name for method in methods])
    notes = Notes(folders, counts, memory_bytes, tick, bench.log, processes, spread)
    # Who cuts lines out looks at what the others leave: else text that stands in a copy goes with the copy.
    for method in sorted(methods, key=lambda method: getattr(method.variant, "EDITS", False)):
        method.variant.decide(method.settings, table, notes)
    ids = _Ids(notes)
    accounts: list[Facts] = []
    for number, shard in enumerate(shards):
        if not shard.earlier:
            accounts.append(_write_shard(number, shard, table, notes, ids, bench, tick))
        bench.progress(len(shards) + number + 1, 2 * len(shards), unit="shards")
    facts = _gather(accounts, bench)
    clusters = _write_clusters(table, ids, bench.out)
    account = _summed(accounts)
    account.extra |= {"clusters": clusters, **table.facts}
    if account.read and not facts["splits"].get("train"):
        raise DataError(
            "every training document was rejected",
            where=f"stage {bench.label}",
            found=reasons_table(account),
            expected="at least one training document that duplicates no held-out or earlier one",
            remedy="give other training text, or leave a method out of `methods`",
        )
    facts["accounts"] = {bench.label: account.to_dict()}
    return facts


class _Ids:
    """The names of all documents, read from disk when asked for."""

    def __init__(self, notes: Notes) -> None:
        self._first, self._folders = notes.first, notes.folders
        self._starts = [np.load(folder / "id-starts.npy", mmap_mode="r") for folder in notes.folders]

    def __getitem__(self, row: int) -> str:
        shard = int(np.searchsorted(self._first, row, side="right")) - 1
        at = row - int(self._first[shard])
        begin, end = int(self._starts[shard][at]), int(self._starts[shard][at + 1])
        with (self._folders[shard] / "ids.bin").open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).decode("utf-8", "surrogatepass")


def _write_shard(
    number: int, shard: Shard, table: Table, notes: Notes, ids: _Ids, bench: Bench, tick: Any
) -> Facts:
    """Writes what stays of one shard, once; gives its facts and account."""
    done = bench.checkpoints / f"written-{number:05d}"
    if not done.is_dir():
        partial = done.with_name(done.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        account = Account()
        writer = CorpusWriter(partial)
        first = int(notes.first[number])
        try:
            for at, document in enumerate(read_shard(shard.path, shard.split)):
                if not at % 256:
                    tick()
                kept = _judged(first + at, document, table, ids, account)
                if kept is not None:
                    writer.write(kept)
        finally:
            corpus = writer.close()
        facts = {"corpus": corpus, "account": account.to_dict()}
        (partial / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        partial.rename(done)
    return json.loads((done / "facts.json").read_text(encoding="utf-8")) | {"folder": str(done)}


def _judged(row: int, document: Document, table: Table, ids: _Ids, account: Account) -> Document | None:
    account.read += 1
    account.read_bytes += len(document.text.encode("utf-8", "surrogatepass"))
    if document.split != "train":
        return account.keep(document)
    if not table.alive[row]:
        like = float(table.similarity[row])
        of = ids[int(table.of[row])]
        account.reject(table.reason(row), document, f"of {of}" if like >= 1 else f"{like:.2f} like {of}")
        return None
    text, lines = document.text, 0
    for edit in table.edits:
        text, gone = edit(row, replace(document, text=text))
        lines += gone
    if lines:
        if not text.strip():
            account.reject("only repeated lines", document, f"{lines} lines")
            return None
        for name, count in (("documents_cut", 1), ("lines_removed", lines)):
            account.extra[name] = account.extra.get(name, 0) + count
        document = replace(document, text=text)
    return account.keep(document)


def _gather(parts: Sequence[Facts], bench: Bench) -> Facts:
    """Moves the written shards together, numbered anew, and adds their facts up."""
    splits: dict[str, Counter[str]] = {}
    numbers: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for part in parts:
        for split, counts in part["corpus"]["splits"].items():
            splits.setdefault(split, Counter()).update(counts)
            languages[part["corpus"]["language_hint"]] += counts["bytes"]
        for path in sorted(Path(part["folder"]).glob("*.jsonl.zst")):
            split = path.name.partition("-")[0]
            # Copied, not moved: what a kill leaves in `out` is thrown away, what is noted here is not.
            shutil.copyfile(path, bench.out / f"{split}-{numbers[split]:05d}.jsonl.zst")
            numbers[split] += 1
    ordered = {split: dict(splits[split]) for split in SPLITS if split in splits}
    hint = languages.most_common(1)[0][0] if languages else "und"
    return {"splits": ordered, "language_hint": hint}


def _summed(parts: Sequence[Facts]) -> Account:
    total = Account()
    for part in parts:
        one = part["account"]
        for name in ("read", "read_bytes", "kept", "kept_bytes"):
            setattr(total, name, getattr(total, name) + one[name])
        for name in ("reasons", "reason_bytes", "extra"):
            into = getattr(total, name)
            for key, count in one[name].items():
                into[key] = into.get(key, 0) + count
        for reason, rows in one["examples"].items():
            shown = total.examples.setdefault(reason, [])
            shown += rows[: total.examples_kept - len(shown)]
    return total


def _write_clusters(table: Table, ids: _Ids, out: Path) -> Facts:
    """Writes a line for each document that stays and has duplicates: which, found how, how similar."""
    import zstandard

    stays = table.staying()
    rows = np.flatnonzero(stays >= 0)
    rows = rows[np.argsort(stays[rows], kind="stable")]
    edges = (
        np.flatnonzero(np.diff(stays[rows], prepend=-1, append=-1)) if len(rows) else np.zeros(1, dtype=int)
    )
    sizes: Counter[int] = Counter()
    shown: list[tuple[int, int, str, list[str]]] = []
    roles = {Table.TRAIN: "train", Table.HELDOUT: "held out or test", Table.EARLIER: "earlier corpus"}
    with (
        (out / CLUSTERS).open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as packed,
    ):
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            kept = int(stays[rows[begin]])
            sizes[end - begin + 1] += 1
            members = []
            for row in rows[begin:end].tolist():
                member: dict[str, Any] = {"id": ids[row], "by": table.methods[table.by[row]]}
                if table.methods[table.by[row]] not in ("exact", "heldout"):
                    member["similarity"] = round(float(table.similarity[row]), 4)
                if int(table.of[row]) != kept:
                    member["of"] = ids[int(table.of[row])]
                members.append(member)
            shown = sorted(
                [
                    *shown,
                    (end - begin, -begin, ids[kept], [member["id"] for member in members[:SHOWN_MEMBERS]]),
                ],
                reverse=True,
            )[:SHOWN]
            line = {"kept": ids[kept], "from": roles[int(table.role[kept])], "dropped": members}
            packed.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    by = Counter(table.methods[number] for number in table.by[rows].tolist())
    largest = max(sizes, default=0)
    return {
        "file": CLUSTERS,
        "clusters": sum(sizes.values()),
        "largest": largest,
        "dropped_by": dict(by),
        "shown": [{"kept": kept, "dropped": count, "ids": some} for count, _, kept, some in shown],
    }
