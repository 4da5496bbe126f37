"""Executes one job in the workers: asks, listens, watches memory and signals, answers nested runs."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kogata.core.amounts import format_bytes
from kogata.core.errors import KogataError, Refused, Stopped
from kogata.core.receipt import Receipt
from kogata.runtime.meter import Meter
from kogata.runtime.workers import STOP_SECONDS, Group, free_port

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What the workers are asked to do."""

    request: dict[str, Any]
    world: int = 1
    memory_limit: int | None = None


@dataclass
class Outcome:
    """What became of a job."""

    facts: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    flops: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each fused member."""
    error: KogataError | None = None


class OurBug(Exception):
    """A stage raised what is no user's mistake; carries its traceback."""


def execute(
    job: Job,
    group: Group,
    meter: Meter,
    heard: Callable[[str, Mapping[str, Any]], None],
    nested: Callable[[Mapping[str, Any], str], list[Receipt]],
    tick: Callable[[], int | None],
) -> Outcome:
    """Runs a job on `world` workers and waits for all of them.

    A lost rank, a passed memory limit or a signal ends the whole group: first asked to checkpoint and
    leave, then killed. Raises `OurBug` when a stage fails otherwise than by a user's mistake.
    """
    label: str = job.request["label"]
    workers = group.ready(job.world)
    port = free_port() if job.world > 1 else None
    for worker in workers:
        worker.ask({**job.request, "rank": worker.rank, "world": job.world, "port": port})
    waiting = {worker.rank for worker in workers}
    outcome = Outcome()
    stopped_by: int | None = None
    breach: int | None = None
    kill_at: float | None = None
    while waiting:
        signum = tick()
        used = meter.tree_bytes()
        if job.memory_limit and used and used > job.memory_limit and breach is None:
            breach = used
        if kill_at is None and (signum is not None or breach is not None):
            stopped_by = signum
            kill_at = time.monotonic() + STOP_SECONDS
            for worker in workers:
                worker.ask_to_stop()
        if kill_at is not None and time.monotonic() > kill_at:
            break
        try:
            rank, event = group.events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if event is None:
            if rank in waiting:
                code = next(worker.exit_code() for worker in workers if worker.rank == rank)
                words = group.last_words()
                group.drop()
                if breach is not None or signum is not None:
                    break
                return Outcome(error=_lost(label, rank, job.world, code, words))
        elif event["event"] == "done":
            waiting.discard(rank)
            if rank == 0:
                outcome = _done(event)
        elif event["event"] == "failed":
            waiting.discard(rank)
            if event.get("error") is None:
                group.drop()
                raise OurBug(event.get("bug") or "unknown")
            error = KogataError.from_dict(event["error"])
            if outcome.error is None or isinstance(outcome.error, Stopped):
                outcome.error = error
            if waiting:
                for worker in workers:
                    worker.ask_to_stop()
                kill_at = kill_at or time.monotonic() + STOP_SECONDS
        elif event["event"] == "nested":
            _answer(workers[0], event, job, nested)
        else:
            heard(label, event)
    if waiting:
        group.drop()
    if breach is not None:
        limit = job.memory_limit or 0
        return Outcome(
            error=Refused(
                f"{label} passed the memory budget and was stopped",
                found=format_bytes(breach),
                expected=f"at most {format_bytes(limit)} (1.05 times the budget)",
                remedy="raise `memory` in the budget, or choose a smaller model, batch or context",
            )
        )
    if stopped_by is not None and (waiting or isinstance(outcome.error, Stopped)):
        error = Stopped(f"{label} was stopped", remedy="the same command goes on from its last checkpoint")
        error.exit_code = 130 if stopped_by == signal.SIGINT else 143
        return Outcome(error=error)
    return outcome


def _done(event: Mapping[str, Any]) -> Outcome:
    return Outcome(
        facts=event["facts"], tokens=event["tokens"], flops=event["flops"], seconds=event["seconds"]
    )


def _answer(worker: Any, event: Mapping[str, Any], job: Job, nested: Callable[..., list[Receipt]]) -> None:
    """Runs what a stage asked for and sends it the receipts, or the error."""
    try:
        receipts = nested(event, job.request["label"])
        worker.ask({"do": "nested", "receipts": [receipt.to_dict() for receipt in receipts]})
    except KogataError as error:
        worker.ask({"do": "nested", "receipts": [], "error": error.to_dict()})


def _lost(label: str, rank: int, world: int, code: int | None, words: str) -> KogataError:
    who = f"rank {rank} of {world}" if world > 1 else "the worker"
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        remedy = "the system kills what takes too much memory: state a memory budget, or a smaller model"
    else:
        remedy = "run the same command again; it goes on from the last checkpoint"
    error = KogataError(f"{label}: {who} was lost", found=f"{how}\n{words}".strip(), remedy=remedy)
    error.exit_code = 1
    return error
