"""Selection: scores for all, the best of them within the amount, a row for every choice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from kogata.core.artifact import SPLITS, Artifact, Kind
from kogata.core.errors import DataError, Stopped
from kogata.core.stage import Account, Bench, Facts
from kogata.engine.examples import ExamplesWriter
from kogata.engine.ngrams import runs_of, units_of
from kogata.engine.readers._common import ReadOptions
from kogata.engine.select._pool import Item, Pool
from kogata.engine.text import CorpusWriter, documents_of, input_files

SCORES = "scores.jsonl.zst"
HELD_RUN, HELD_SHARE = 13, 0.3
"""A text of which so large a share of runs of 13 words is held out is itself held out."""
TARGET_CHARACTERS = 32_000_000


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the settings decide."""

    method: str
    variant: Any
    settings: Any
    limit_bytes: int | None = None
    """How much stays; None: everything the method does not rule out."""
    share: float | None = None
    target: list[str] | None = None
    """Paths."""
    processes: int = 1
    """How many score."""
    ray: bool = False
    """Whether a cluster does."""
    trial: Any = None
    """How the choice is tried; None: not at all."""


def select(
    job: Selection, bench: Bench, pool_of: Artifact, target: Artifact | None, model: Artifact | None
) -> Facts:
    """Writes what was chosen, and a row for every choice, into `bench.out`; gives its facts.

    Raises:
        DataError: there is nothing to choose from, or nothing was chosen; the target is held-out text.
        Stopped: someone asked to stop.
    """

    def tick() -> None:
        if bench.stopping():
            raise Stopped("stopped while choosing", remedy="the same command goes on")

    ours = job.variant.__name__.startswith("kogata.")
    pool = Pool(
        path=pool_of.path,
        kind=str(pool_of.kind),
        seed=bench.seed,
        model=model.path if model is not None else None,
        tick=tick,
        say=bench.log,
        count=bench.count,
        # A plug-in's steps are known to this process alone.
        processes=job.processes if ours else 1,
        spread=bench.spread if job.ray and ours else None,
        folder=bench.checkpoints / "scores",
    )
    total = int(pool.sizes.sum())
    if not total:
        raise DataError("nothing to choose from", where=f"stage {bench.label}", found="no training text")
    limit = job.limit_bytes if job.limit_bytes is not None else round((job.share or 1.0) * total)
    pool.limit_bytes = min(limit, total)
    told = _target(pool, job, target, bench)
    scores = np.asarray(job.variant.scores(job.settings, pool), dtype=np.float64)
    assert scores.shape == pool.sizes.shape, f"{job.method} scored {len(scores)} of {len(pool.sizes)}"
    kept = choose(scores, pool.sizes, limit)
    if not kept.any():
        raise DataError(
            "nothing was chosen",
            where=f"stage {bench.label}, method {job.method}",
            found=f"{len(scores)} rows, none of which the method lets stay",
            expected="at least one",
            remedy="loosen the method's bounds, or choose another method",
        )
    facts, account = _write(pool, scores, kept, job.method, bench, tick)
    ruled_out = int(np.isneginf(scores).sum())
    account.extra |= {
        "method": job.method,
        "file": SCORES,
        "limit_bytes": int(limit),
        "kept_share": round(float(pool.sizes[kept].sum()) / total, 4),
        "least_score": _number(scores[kept].min()),
        "ruled_out": ruled_out,
    } | ({"target": told} if told else {})
    if job.trial is not None:
        from kogata.engine.select._proxy import try_out

        account.extra["trial"] = try_out(job.trial, pool, kept, bench)
    again = {key: value for key, value in pool_of.facts.items() if key in ("columns", "form")}
    return {**again, **facts, "accounts": {bench.label: account.to_dict()}}


def choose(scores: np.ndarray, sizes: np.ndarray, limit_bytes: float) -> np.ndarray:
    """Says which items stay: from the highest score on, as long as more than half of the next one fits."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.lexsort((np.arange(len(scores)), -scores))
    order = order[~np.isneginf(scores[order])]
    fits = np.cumsum(sizes[order]) - sizes[order] / 2 <= limit_bytes
    fits[:1] = True
    kept = np.zeros(len(scores), dtype=bool)
    kept[order[fits]] = True
    return kept


def _target(pool: Pool, job: Selection, target: Artifact | None, bench: Bench) -> Facts:
    """Reads the target's texts into the pool, held-out ones left out."""
    if target is not None:
        texts = (item.text for item in Pool(target.path, str(target.kind)).items())
    elif job.target:
        files = input_files(job.target)
        texts = (item.text for item in documents_of(files, ReadOptions(), Account(), named=True))
    else:
        return {}
    held = _runs([item.text for split in SPLITS if split != "train" for item in pool.items(split)])
    left_out = characters = 0
    for text in texts:
        runs = _runs([text])
        if len(runs) and len(held) and _shared(runs, held) >= HELD_SHARE:
            left_out += 1
            continue
        if characters < TARGET_CHARACTERS:
            pool.target.append(text)
            characters += len(text)
    if not pool.target:
        raise DataError(
            "the target is held-out text" if left_out else "the target holds no text",
            where=f"stage {bench.label}, target",
            found=f"{left_out} documents, all of them held out or test text" if left_out else "no document",
            expected="text of the same kind that nothing is judged on",
            remedy="choosing by the text that is judged on makes the judgement worthless: name other texts "
            "of its kind, for example a part of them set apart beforehand",
        )
    if left_out:
        bench.log(f"{left_out} documents of the target are held out: not looked at")
    return {"documents": len(pool.target), "characters": characters, "held_out_left_out": left_out}


def _runs(texts: list[str]) -> np.ndarray:
    return np.unique(runs_of(*units_of(texts), HELD_RUN)[0])


def _shared(runs: np.ndarray, held: np.ndarray) -> float:
    where = np.minimum(np.searchsorted(held, runs), len(held) - 1)
    return float((held[where] == runs).mean())


def _write(
    pool: Pool, scores: np.ndarray, kept: np.ndarray, method: str, bench: Bench, tick: Any
) -> tuple[Facts, Account]:
    import zstandard

    account = Account()
    writer: Any = ExamplesWriter(bench.out) if pool.kind == Kind.EXAMPLES else CorpusWriter(bench.out)

    def write(item: Item, split: str) -> None:
        account.kept += 1
        account.kept_bytes += len(item.text.encode("utf-8", "surrogatepass"))
        writer.write(item.source, split) if pool.kind == Kind.EXAMPLES else writer.write(item.source)

    try:
        for split in reversed(SPLITS):
            if split != "train":
                for item in pool.items(split):
                    account.read += 1
                    account.read_bytes += len(item.text.encode("utf-8", "surrogatepass"))
                    write(item, split)
        with (
            (bench.out / SCORES).open("wb") as file,
            zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as rows,
        ):
            for at, item in enumerate(pool.items()):
                if not at % 256:
                    tick()
                    bench.progress(at, len(scores), unit="documents")
                score, stays = _number(scores[at]), bool(kept[at])
                account.read += 1
                account.read_bytes += int(pool.sizes[at])
                if stays:
                    write(item, "train")
                else:
                    _reject(account, item, score, method, pool.reasons.get(at))
                row = {"id": item.id, "score": score, "kept": stays}
                row |= {"reason": pool.reasons[at]} if at in pool.reasons else {}
                rows.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    finally:
        facts = writer.close()
    return facts, account


def _reject(account: Account, item: Item, score: float | None, method: str, why: str | None) -> None:
    """Counts what does not stay: under the method's reason for it where there is one, without its numbers."""
    from kogata.core.artifact import Document

    reason = f"ruled out by {method}" if score is None else f"not among the best by {method}"
    if why is not None:
        reason = why.partition(":")[0]
    account.reject(reason, Document(item.id, item.text, source=item.source.source), why or score)


def _number(value: float) -> float | None:
    """Gives a score for JSON; None for one that is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
