"""Worker processes as their parent sees them: started, asked, listened to, stopped."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kogata.core.registry import PACKAGE
from kogata.runtime.nodes import Hub, Lent

Events = queue.Queue[tuple[int, dict[str, Any] | None]]
"""Rank and event; None when the rank's process ended."""

STOP_SECONDS = 60.0
"""How long a stage may take to write its checkpoint before it is killed."""


class Worker:
    """One child process; its events arrive in a queue shared by the group."""

    def __init__(self, log: Path, events: Events, rank: int, threads: int, *, warm: bool) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(PACKAGE.parent), *filter(None, sys.path)])),
        }
        self.rank = rank
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kogata.runtime.worker", *(["--warm"] if warm else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._events = events
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                self._events.put((self.rank, event))
        self._events.put((self.rank, None))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> None:
        """Sends one request."""
        assert self._process.stdin is not None
        line = json.dumps(request, ensure_ascii=False, default=str) + "\n"
        try:
            self._process.stdin.write(line.encode("utf-8", "surrogatepass"))
            self._process.stdin.flush()
        except BrokenPipeError:
            self._events.put((self.rank, None))

    place = ""
    """Where it is, for messages; one on another computer says so."""

    def words(self) -> str:
        """Says how it ended; nothing, for it left its last words in the log."""
        return ""

    def exit_code(self) -> int | None:
        """Gives the exit code; None while the process lives."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Sends SIGTERM: checkpoint and leave the stage."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self, *, now: bool = False) -> None:
        """Ends the process: lets it go when idle, kills it when it does not."""
        assert self._process.stdin is not None
        with suppress(OSError):  # It may be gone already.
            self._process.stdin.close()
        if now:
            self._process.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=5)
        self._log.close()


class Group:
    """The workers of one run: one that stays, more of them for parallel stages."""

    def __init__(self, folder: Path, cores: int, *, warm: bool = False) -> None:
        self.warm = warm
        """Whether workers import torch at once, for a stage to come will need it."""
        self.log = folder / "worker.log"
        self.cores = cores
        self.events: Events = queue.Queue()
        self.workers: list[Worker] = []
        self.hub: Hub | None = None
        """The other computers, where there are any."""
        self._threads = 0

    def ready(self, world: int) -> list[Any]:
        """Gives `world` live workers, starting what is missing; the later ones are other computers'."""
        here = self._here(world)
        threads = max(1, self.cores // here)
        if threads != self._threads:
            self.close()
            self._threads = threads
        while len(self.workers) < here:
            self.workers.append(Worker(self.log, self.events, len(self.workers), threads, warm=self.warm))
        if self.hub is None or here == world:
            return self.workers[:world]
        self.hub.number += 1
        self.hub.tell = lambda rank, event: self.events.put((rank, event))
        return [*self.workers[:here], *(Lent(self.hub, rank) for rank in range(here, world))]

    def meeting(self, world: int) -> dict[str, Any]:
        """Says where the ranks of a job meet, and how many of them are on each computer."""
        here = self._here(world)
        if here == world:
            return {"port": free_port() if world > 1 else None, "here": here}
        assert self.hub is not None
        return {
            "port": free_port(""),
            "here": here,
            "address": self.hub.nodes.host,
            "interface": self.hub.interface(),
        }

    def _here(self, world: int) -> int:
        return world if self.hub is None or world == 1 else self.hub.processes

    def drop(self) -> None:
        """Kills every worker at once."""
        if self.hub is not None:
            self.hub.drop()
        for worker in self.workers:
            worker.close(now=True)
        self.workers = []
        self.events = queue.Queue()

    def close(self) -> None:
        """Lets idle workers go."""
        for worker in self.workers:
            worker.close()
        self.workers = []
        self.events = queue.Queue()

    def pids(self) -> list[int]:
        """Lists the live workers' process ids."""
        return [worker.pid for worker in self.workers if worker.exit_code() is None]

    def last_words(self, lines: int = 12) -> str:
        """Gives the end of the workers' log."""
        try:
            text = self.log.read_bytes()[-4000:].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def free_port(address: str = "127.0.0.1") -> int:
    """Finds a free port for a group of ranks to meet."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]
