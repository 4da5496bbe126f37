"""The meter: seconds, CPU seconds, energy and peak memory of a tree of processes, stage by stage.

A thread looks at the tree every 30 ms, or less often where looking would take more than half a percent of a
core. Between two looks the kernel's own high-water marks (reset at the start of a stage) catch short peaks.
Memory that forked children share is counted once: what the processes have resident, less the overlap that
the kernel's divided accounts (`smaps_rollup`) show; these are read seldom, for they cost more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kogata.core.amounts import Cost
from kogata.core.receipt import Machine
from kogata.runtime.energy import EnergyMeter
from kogata.runtime.processes import (
    Identity,
    Tree,
    Usage,
    borrows_memory,
    parts_of,
    peak_of,
    reset_peak,
    resident_files,
)

LOOK_SECONDS = 0.03
LOOK_SHARE = 0.005
"""Part of one core that looking may take."""
DIVIDED_SHARE = 0.002
"""The same for reading the divided accounts again."""
NEWCOMER_SHARE = 0.02
"""The same when a process is new: rare, and until then nothing is known of it."""
DIVIDED_SECONDS = 2.0
COUNTER_SECONDS = 1.0
"""How often energy counters are read, so that none wraps unseen."""


@dataclass
class Mark:
    """A point in time from which cost is counted; made by `Meter.mark`."""

    seconds: float
    cpu_seconds: float
    energy: tuple[float | None, float | None]
    peak_bytes: int = 0
    resident: dict[Identity, int] = field(default_factory=dict)
    """Process → its high-water mark when counting began; only what exceeds it belongs here."""
    others: dict[Identity, int] = field(default_factory=dict)
    """Process → the least that the rest of the tree held while it was there."""


@dataclass
class Measured:
    """What `Meter.stage` yields; holds the cost when the block has ended."""

    mark: Mark
    cost: Cost | None = None


class Meter:
    """Measures a process and everything it starts.

    Args:
        root: the process's id; default is this one.
        machine: models the energy where no counter can be read; None leaves it unmeasured.
    """

    def __init__(self, root: int | None = None, *, machine: Machine | None = None) -> None:
        self.root = os.getpid() if root is None else root
        self.energy = EnergyMeter(machine)
        self._tree = Tree(self.root)
        self._lock = threading.RLock()
        self._marks: list[Mark] = []
        self._overlap = 0
        self._divided: set[Identity] = set()
        """The processes among whom the overlap was read."""
        self._divided_at = self._divided_cost = 0.0
        self._divided_bytes = 0
        self._bytes = 0
        self._counters_at = 0.0
        self._cpu = 0.0
        self._limit: tuple[int, Callable[[int], Any]] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def machine(self) -> Machine | None:
        """The machine whose power models the energy; may be set once it is known."""
        return self.energy.machine

    @machine.setter
    def machine(self, machine: Machine | None) -> None:
        self.energy.machine = machine

    def start(self) -> Meter:
        """Begins to look; returns itself."""
        self.look()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stops looking."""
        self._end.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def __enter__(self) -> Meter:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def limit(self, memory_bytes: int | None, breached: Callable[[int], Any] | None = None) -> None:
        """Calls `breached(bytes)` once, from the meter's thread, when the tree holds more; None: no limit."""
        with self._lock:
            self._limit = None if memory_bytes is None or breached is None else (memory_bytes, breached)

    # Stages

    def mark(self) -> Mark:
        """Begins to count; marks may lie inside one another."""
        with self._lock:
            self.look()
            self._fold()
            mark = Mark(
                seconds=time.monotonic(),
                cpu_seconds=self._cpu,
                energy=self.energy.poll(),
                peak_bytes=self._bytes,
            )
            self._marks.append(mark)
            for pid, usage in self._tree.members.items():
                reset_peak(pid)
                peak = peak_of(pid)
                if peak is not None:
                    for one in self._marks:
                        one.resident[usage.identity] = peak
            return mark

    def cost(self, mark: Mark, *, end: bool = True) -> Cost:
        """Gives what was spent since a mark; unless `end` is False the mark then counts no more."""
        with self._lock:
            self.look()
            self._fold()
            if end and mark in self._marks:
                self._marks.remove(mark)
            seconds = time.monotonic() - mark.seconds
            cpu = max(0.0, self._cpu - mark.cpu_seconds)
            joules = self.energy.between(mark.energy, self.energy.poll(), seconds, cpu)
            return Cost(seconds=seconds, cpu_seconds=cpu, joules=joules, peak_bytes=mark.peak_bytes or None)

    @contextmanager
    def stage(self) -> Iterator[Measured]:
        """Measures a block: `with meter.stage() as measured: …`, then `measured.cost`; failures count too."""
        measured = Measured(self.mark())
        try:
            yield measured
        finally:
            measured.cost = self.cost(measured.mark)

    def tree_bytes(self) -> int:
        """Gives the resident bytes of the tree now."""
        with self._lock:
            self.look()
            return self._bytes

    # Looking

    def _watch(self) -> None:
        pause = LOOK_SECONDS
        while not self._end.wait(pause):
            before = time.thread_time()
            self.look()
            spent = time.thread_time() - before
            pause = min(1.0, max(LOOK_SECONDS, spent / LOOK_SHARE))

    def look(self) -> None:
        """Looks once; the thread does it again and again."""
        breached: Callable[[int], Any] | None = None
        with self._lock:
            members = self._tree.look()
            now = time.monotonic()
            self._bytes = held = self._held(members, now)
            limit = self._limit
            if limit is not None and held > limit[0] and len(members) > 1:
                # Before anyone is stopped, be sure that shared pages are not counted twice.
                self._read_divided(members, now)
                self._bytes = held = self._held(members, now)
            for mark in self._marks:
                mark.peak_bytes = max(mark.peak_bytes, held)
                for usage in members.values():
                    rest = max(0, held - usage.resident_bytes)
                    mark.others[usage.identity] = min(mark.others.get(usage.identity, rest), rest)
            self._count_cpu(members)
            if now - self._counters_at > COUNTER_SECONDS:
                self._counters_at = now
                self.energy.poll()
            if limit is not None and held > limit[0]:
                breached, self._limit = limit[1], None
        if breached is not None:
            breached(held)

    def _count_cpu(self, members: dict[int, Usage]) -> None:
        cpu = self._tree.cpu_seconds()
        if self.root == os.getpid() and self.root in members:
            # The own clock is finer than the kernel's ticks.
            cpu += time.process_time() - members[self.root].cpu_seconds
        # A process that ended and is not yet in its parent's sum must not turn the clock back.
        self._cpu = max(self._cpu, cpu)

    def _held(self, members: dict[int, Usage], now: float) -> int:
        if len(members) <= 1:
            return sum(usage.resident_bytes for usage in members.values())
        identities = {usage.identity for usage in members.values()}
        total = sum(usage.resident_bytes for usage in members.values())
        largest = max((mark.peak_bytes for mark in self._marks), default=0)
        since = now - self._divided_at
        if not identities <= self._divided:
            due = since > self._divided_cost / NEWCOMER_SHARE
        else:
            grown = total - self._overlap > 1.02 * max(largest, self._divided_bytes)
            due = (grown or since > DIVIDED_SECONDS) and since > self._divided_cost / DIVIDED_SHARE
        if due:
            self._read_divided(members, now)
        # Of a newcomer nothing is known yet but that it may share everything.
        known = [usage.resident_bytes for usage in members.values() if usage.identity in self._divided]
        alone = max(usage.resident_bytes for usage in members.values())
        return max(alone, sum(known) - self._overlap)

    def _read_divided(self, members: dict[int, Usage], now: float) -> None:
        before = time.thread_time()
        resident = total = files = 0
        largest_files = 0
        # Between vfork and exec a child runs in its parent's memory, whole and not divided: left for later.
        read = {
            pid: usage
            for pid, usage in members.items()
            if usage.identity in self._divided or not borrows_memory(usage, members.get(usage.parent))
        }
        for pid, usage in read.items():
            largest_files = max(largest_files, resident_files(pid))
            parts = parts_of(pid)
            if parts is None:
                resident += usage.resident_bytes
                total += usage.resident_bytes
                continue
            resident += parts.resident
            total += parts.anonymous + parts.shared_memory
            files += parts.file
        # Libraries are shared with programs outside the tree too; the tree would need them without those.
        total += max(files, largest_files)
        self._overlap = max(0, resident - total)
        self._divided = {usage.identity for usage in read.values()}
        self._divided_at, self._divided_bytes = now, total
        self._divided_cost = time.thread_time() - before

    def _fold(self) -> None:
        """Takes the kernel's high-water marks into every open mark."""
        if not self._marks:
            return
        for pid, usage in self._tree.members.items():
            peak = peak_of(pid)
            if peak is None:
                continue
            for mark in self._marks:
                # At that moment the rest of the tree held at least what it ever held while this one lived.
                if peak > mark.resident.get(usage.identity, 0):
                    mark.peak_bytes = max(mark.peak_bytes, peak + mark.others.get(usage.identity, 0))
