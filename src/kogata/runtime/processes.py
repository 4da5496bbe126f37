"""A tree of processes, its time and its memory: on Linux from /proc, elsewhere by psutil."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform.startswith("linux")
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICK = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01

BORROWED, NEW_SECONDS = 0.02, 1.0
"""How far its size may be from the parent's, whose other threads run on; and how young such a process is."""

Identity = tuple[int, float]
"""Process id and when it began: ids are used again."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used up to now."""

    identity: Identity
    parent: int
    cpu_seconds: float
    """Of its own threads."""
    reaped_seconds: float
    """Of its children that ended and were waited for."""
    resident_bytes: int

    @property
    def pid(self) -> int:
        return self.identity[0]


def usage_of(pid: int) -> Usage | None:
    """Reads one process; None when there is none (any more)."""
    if not LINUX:
        return _portable(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            content = file.read(1024)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name may hold spaces and brackets; what follows the last bracket does not.
    fields = content.rpartition(b")")[2].split()
    if len(fields) < 22:
        return None
    return Usage(
        identity=(pid, int(fields[19])),
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) * TICK,
        reaped_seconds=(int(fields[13]) + int(fields[14])) * TICK,
        resident_bytes=int(fields[21]) * PAGE,
    )


def _portable(pid: int) -> Usage | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                identity=(pid, process.create_time()),
                parent=process.ppid(),
                cpu_seconds=times.user + times.system,
                reaped_seconds=getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0),
                resident_bytes=process.memory_info().rss,
            )
    except psutil.Error:
        return None


def state_of(pid: int) -> str | None:
    """Says what a process does, in the system's word: running, sleeping, stopped …; None when it is gone."""
    import psutil

    try:
        return psutil.Process(pid).status()
    except psutil.Error:
        return None


class Tree:
    """A process and everything it started, looked at again and again at little cost.

    A process that is once in the tree stays in it, also when its parent ends before it.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.members: dict[int, Usage] = {}
        self.lost_seconds = 0.0
        """Of processes that ended and that nobody in the tree waited for."""
        self._strangers: set[int] = set()

    def look(self) -> dict[int, Usage]:
        """Reads every member anew, finds new ones, drops those that ended."""
        before, now = self.members, {}
        for pid, old in before.items():
            usage = usage_of(pid)
            if usage is not None and usage.identity == old.identity:
                now[pid] = usage
        if self.root not in now and (usage := usage_of(self.root)) is not None:
            if not before or self.root not in before:
                now[self.root] = usage
        self._add_new(now)
        for pid, old in before.items():
            # Whoever was waited for by a member is in that member's sum.
            if pid not in now and pid != self.root and old.parent not in before:
                self.lost_seconds += old.cpu_seconds + old.reaped_seconds
        self.members = now
        return now

    def _add_new(self, now: dict[int, Usage]) -> None:
        everyone = _all_pids()
        self._strangers &= everyone
        fresh: dict[int, Usage] = {}
        for pid in everyone - self._strangers - now.keys():
            if (usage := usage_of(pid)) is not None:
                fresh[pid] = usage
        found = True
        while found and fresh:
            found = False
            for pid, usage in list(fresh.items()):
                if usage.parent in now:
                    now[pid] = fresh.pop(pid)
                    found = True
        # Whoever is no descendant when first seen never becomes one: only new processes are looked at.
        self._strangers |= fresh.keys()

    def cpu_seconds(self) -> float:
        """Gives the CPU seconds of all members up to now, those that ended included."""
        return self.lost_seconds + sum(
            usage.cpu_seconds + usage.reaped_seconds for usage in self.members.values()
        )


def _all_pids() -> set[int]:
    if LINUX:
        return {int(name) for name in os.listdir("/proc") if name.isdigit()}
    import psutil

    return set(psutil.pids())


# Memory


@dataclass(frozen=True, slots=True)
class Parts:
    """A process's resident memory by kind; pages it shares are divided among their sharers."""

    anonymous: int
    shared_memory: int
    file: int
    """Pages of files (libraries, mapped data), divided."""
    resident: int


def parts_of(pid: int) -> Parts | None:
    """Reads the divided memory of a process, in some milliseconds per gigabyte; None where unknown."""
    rows: dict[bytes, int] = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            for line in file.read(4096).splitlines()[1:]:
                name, _, value = line.partition(b":")
                if name.startswith((b"Pss", b"Rss")):
                    rows[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError):
        return None
    if b"Pss" not in rows:
        return None
    if b"Pss_Anon" not in rows:
        return Parts(anonymous=rows[b"Pss"], shared_memory=0, file=0, resident=rows[b"Rss"])
    return Parts(
        anonymous=rows[b"Pss_Anon"],
        shared_memory=rows.get(b"Pss_Shmem", 0),
        file=rows.get(b"Pss_File", 0),
        resident=rows[b"Rss"],
    )


def borrows_memory(usage: Usage, parent: Usage | None) -> bool:
    """Says whether a process looked as one does between vfork and exec: new, and of its parent's size."""
    if parent is None or abs(usage.resident_bytes - parent.resident_bytes) > BORROWED * parent.resident_bytes:
        return False
    with suppress(OSError, ValueError, IndexError):
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - usage.identity[1] * TICK < NEW_SECONDS
    return False


def resident_files(pid: int) -> int:
    """Gives the resident bytes of mapped files of a process; 0 where unknown."""
    return _status(pid, b"RssFile") or 0


def peak_of(pid: int) -> int | None:
    """Gives the most a process was resident since it began or since `reset_peak`; None where unknown."""
    return _status(pid, b"VmHWM")


def _status(pid: int, wanted: bytes) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            content = file.read(8192)
        at = content.find(b"\n" + wanted + b":")
        if at >= 0:
            return int(content[at + len(wanted) + 2 : at + len(wanted) + 40].split()[0]) * 1024
    return None


def reset_peak(pid: int) -> bool:
    """Lets `peak_of` count from now; says whether the system permits it."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_bytes(b"5")
    except OSError:
        return False
    return True
