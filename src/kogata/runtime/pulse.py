"""Signs of life: every process of a group says now and then that it is there; one that stays silent is lost.

A collective waits for the slowest process, and one that evaluates or writes for minutes is no reason to end.
One that is stopped or hangs in the system is: the others would wait for it without a word. So a thread beside
the work sends a beat, which a busy process sends as well as an idle one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from kogata.runtime.processes import usage_of

PULSE_SECONDS = 2.0
"""From one beat to the next."""
LOST_SECONDS = 40.0
"""How long a process may be silent: the others stop within a minute."""
FIRST_SECONDS = 180.0
"""… before its first word, for Python starts slowly from a slow disk."""
STEP_SECONDS = 1.0
"""Most that counts as silence between two looks: who listens may have been stopped itself."""
WORKING = 0.005
"""Share of one core: a silent process that used more works on, in a call that lets no other thread in."""


@contextmanager
def beating(beat: Callable[[], object]) -> Iterator[None]:
    """Calls `beat` now and every few seconds from a thread beside the work."""
    ended = threading.Event()

    def go() -> None:
        with suppress(OSError):  # Who listened is gone: this process goes with it.
            while not ended.is_set():
                beat()
                ended.wait(PULSE_SECONDS)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


@dataclass
class _Listened:
    pid: int | None
    """None on another computer."""
    silent_seconds: float = 0.0
    spoke: bool = False
    cpu_seconds: float = 0.0
    """Used when it was last heard."""

    def used(self) -> float:
        usage = None if self.pid is None else usage_of(self.pid)
        return 0.0 if usage is None else usage.cpu_seconds


class Watch:
    """Listens for the beats of processes.

    Args:
        pids: rank → process id; None where the process is on another computer.
    """

    def __init__(self, pids: Mapping[int, int | None]) -> None:
        self._ranks = {rank: _Listened(pid) for rank, pid in pids.items()}
        self._looked = time.monotonic()

    def heard(self, rank: int) -> None:
        """Notes a sign of life."""
        listened = self._ranks[rank]
        listened.silent_seconds, listened.spoke = 0.0, True
        listened.cpu_seconds = listened.used()

    def lost(self, waiting: Iterable[int]) -> tuple[int, float] | None:
        """Gives the rank that has been silent too long, and the seconds; None while all are there.

        Args:
            waiting: ranks that are still at work.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, STEP_SECONDS), now
        for rank in waiting:
            listened = self._ranks[rank]
            listened.silent_seconds += passed
            if listened.silent_seconds < (LOST_SECONDS if listened.spoke else FIRST_SECONDS):
                continue
            if listened.used() - listened.cpu_seconds > WORKING * listened.silent_seconds:
                self.heard(rank)
                continue
            return rank, listened.silent_seconds
        return None
