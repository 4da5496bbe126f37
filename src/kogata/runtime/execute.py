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
from kogata.runtime.processes import state_of
from kogata.runtime.pulse import Watch
from kogata.runtime.workers import STOP_SECONDS, Group

POLL_SECONDS = 0.2
SETTLE_SECONDS = 5.0
"""How long after one rank's failure another's may come that explains it: who is left raises an error too."""


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
    unmeasured: dict[str, None] = field(default_factory=dict)
    """Parts of the cost that are not known, as other computers had a hand in them."""


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
    meeting = group.meeting(job.world)
    for worker in workers:
        worker.ask({**job.request, **meeting, "rank": worker.rank, "world": job.world})
    waiting = {worker.rank for worker in workers}
    # Those on other computers are listened to there.
    ours = {worker.rank: worker.pid for worker in workers if worker.pid is not None}
    watch = Watch(ours) if job.world > 1 else None
    outcome = Outcome()
    stopped_by: int | None = None
    breach: int | None = None
    kill_at: float | None = None
    parted: dict[str, Any] | None = None
    settle_at = 0.0
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
        if parted is not None and time.monotonic() > settle_at:
            break
        if watch is not None and (silent := watch.lost(waiting & ours.keys())) is not None:
            pid = ours[silent[0]]
            hangs = {"event": "hangs", "seconds": silent[1], "pid": pid, "doing": state_of(pid)}
            group.events.put((silent[0], hangs))
        try:
            rank, event = group.events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if watch is not None and event is not None and rank in waiting and rank in ours:
            watch.heard(rank)
        if event is None:
            if rank in waiting:
                code = next(worker.exit_code() for worker in workers if worker.rank == rank)
                error = _lost(label, workers[rank], job.world, code, group.last_words())
                group.drop()
                if breach is not None or signum is not None:
                    break
                return Outcome(error=error)
        elif event["event"] == "hangs":
            group.drop()
            if breach is not None or stopped_by is not None:
                break
            return Outcome(error=_silent(label, workers[rank], job.world, event))
        elif event["event"] == "done":
            waiting.discard(rank)
            if rank == 0:
                outcome = _done(event)
                if len(ours) < job.world:
                    outcome.unmeasured = dict.fromkeys(("cpu_seconds", "joules"))
        elif event["event"] == "failed":
            waiting.discard(rank)
            if job.world > 1 and (event.get("error") is None or event.get("apart")):
                # It may be the echo of another's end, which is then heard in a moment.
                if parted is None or parted.get("apart"):
                    parted, settle_at = event, time.monotonic() + SETTLE_SECONDS
                continue
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
        elif event["event"] != "pulse":
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
    if parted is not None and (outcome.error is None or isinstance(outcome.error, Stopped)):
        group.drop()
        if not parted.get("apart"):
            raise OurBug(parted.get("bug") or "unknown")
        outcome.error = KogataError.from_dict(parted["error"])
        outcome.error.exit_code = 1
    return outcome


def _silent(label: str, worker: Any, world: int, event: Mapping[str, Any]) -> KogataError:
    doing = f"; process {event['pid']} is {event['doing']}" if event["doing"] else ""
    error = KogataError(
        f"{label}: rank {worker.rank} of {world}{worker.place} hangs and is given up",
        found=f"no sign of life for {event['seconds']:.0f} s{doing}",
        remedy="see what holds it (a stopped process, swapping, a dead disk), then run the same command "
        "again; it goes on from the last checkpoint",
    )
    error.exit_code = 1
    return error


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


def _lost(label: str, worker: Any, world: int, code: int | None, words: str) -> KogataError:
    who = f"rank {worker.rank} of {world}{worker.place}" if world > 1 else "the worker"
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        remedy = "the system kills what takes too much memory: state a memory budget, or a smaller model"
    else:
        remedy = "run the same command again; it goes on from the last checkpoint"
    found = worker.words() or f"{how}\n{words}".strip()
    error = KogataError(f"{label}: {who} was lost", found=found, remedy=remedy)
    error.exit_code = 1
    return error
