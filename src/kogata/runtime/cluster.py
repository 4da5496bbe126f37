"""Work on a cluster: what a stage gives to processes of its own runs on Ray, and comes back in order.

The cluster is the one that `RAY_ADDRESS` names; without it a Ray of this machine's own, on loopback, that
ends with the work. No dashboard, no statistics of use.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from kogata.core.errors import EnvironmentProblem, KogataError

AHEAD = 2
"""Batches a process has at a time: it works on one while the next travels."""
HAND_CPUS = 0.25
"""Of a core, that Ray sets aside for a process: stages that run in one pass share the cores, and who works
waits for the one before."""
START_SECONDS = 120
"""How long the first process of a cluster may take to begin."""
TRIES = 3
"""How often an item is tried whose process dies."""
REMOVE_SECONDS = 10
"""How long Ray's own processes may still write to its folder after it was told to end."""
LOCAL_STORE_BYTES = 2**27
"""Shared memory of a Ray of this machine's own; a batch of pages is far smaller."""

Batch = list[Any]


def on_ray(
    make: Callable[[], Callable[[Batch], Batch]],
    batches: Iterable[Batch],
    seconds: float,
    late: Callable[[Any], Any],
) -> Generator[Batch]:
    """Yields what becomes of each batch, in the order they came, as one process would make it.

    A batch that does not end is cut up, item by item, to find the one that hangs; a process that dies is
    replaced and its batches are done again.

    Args:
        make: called once in each process; gives the function from a batch to its results, one an item.
        batches: read in this process, one after another.
        seconds: by the clock, that an item may take.
        late: gives the result of an item that takes longer.

    Raises:
        EnvironmentProblem: Ray is not installed, cannot be reached, or has no process to spare.
        KogataError: an item's process dies again and again, or the function says so.
    """
    with closing(Cluster()) as cluster:
        yield from cluster.spread(make, batches, seconds, late)


class Cluster:
    """The cluster of one stage: joined when it first has work, left at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._ray: Any = None

    def spread(
        self,
        make: Callable[[], Callable[[Batch], Batch]],
        batches: Iterable[Batch],
        seconds: float,
        late: Callable[[Any], Any],
    ) -> Generator[Batch]:
        """Yields what becomes of each batch, as `on_ray` does."""
        if self._ray is None:
            self._ray = self._stack.enter_context(_joined())
        crew = _Crew(self._ray, make, seconds, late)
        stream = iter(batches)
        try:
            for _ in range(AHEAD * crew.size):
                if batch := next(stream, None):
                    crew.give(batch)
            while crew.waiting:
                found = crew.take()
                if batch := next(stream, None):
                    crew.give(batch)
                yield found
        finally:
            crew.leave()

    def close(self) -> None:
        """Leaves the cluster; one of this machine's own ends."""
        self._ray = None
        self._stack.close()


@cache
def _token() -> str:
    """Gives this process's token: Ray reads it once, also where it is started anew for another stage."""
    return secrets.token_hex(32)


@contextmanager
def _joined() -> Iterator[Any]:
    """Joins the cluster, or starts one here for the time being; gives the module."""
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, str] = {"RAY_USAGE_STATS_ENABLED": "0"}
    if not address:
        # Ray knows no other way to listen on loopback only; it is read when Ray is imported.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        settings["RAY_AUTH_TOKEN"] = _token()
        settings["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    folder = None
    try:
        try:
            import ray
        except ImportError:
            raise EnvironmentProblem(
                "there is no Ray to work on", where="processes: ray", remedy="pip install 'kogata[ray]'"
            ) from None
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if not address:
            # Sockets lie in it, whose paths must be short.
            folder = tempfile.mkdtemp(prefix="kogata-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
            quiet |= {"include_dashboard": False, "_temp_dir": folder, "num_cpus": os.cpu_count() or 1}
            quiet |= {"object_store_memory": LOCAL_STORE_BYTES}
        try:
            ray.init(address=address or "local", **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise EnvironmentProblem(
                "Ray cannot be reached" if address else "Ray does not start",
                where=f"RAY_ADDRESS={address}" if address else "processes: ray",
                found=str(error)[:300],
                remedy="start it, or let this machine's own processes work (processes: auto)",
            ) from None
        try:
            if not address and not ray.util.get_node_ip_address().startswith("127."):
                raise EnvironmentProblem(
                    "Ray would listen to the network",
                    where="processes: ray",
                    found="it was imported before kogata could tell it to keep to loopback",
                    remedy="do not import ray in this process",
                )
            yield ray
        finally:
            ray.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if folder is not None:
            _remove(folder)


def _remove(folder: str) -> None:
    """Removes a folder into which processes that are just ending may still write."""
    until = time.monotonic() + REMOVE_SECONDS
    shutil.rmtree(folder, ignore_errors=True)
    while os.path.exists(folder) and time.monotonic() < until:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


class Hand:
    """One process of the cluster."""

    def __init__(self, make: Callable[[], Callable[[Batch], Batch]]) -> None:
        self._problem: dict[str, Any] | None = None
        try:
            self._work = make()
        except KogataError as error:
            self._problem = error.to_dict()

    def ready(self) -> None:
        """Answers once it can work."""

    def work(self, batch: Batch) -> Batch | dict[str, Any]:
        """Gives what becomes of a batch, or what is wrong."""
        if self._problem is not None:
            return self._problem
        try:
            return self._work(batch)
        except KogataError as error:
            return error.to_dict()


@dataclass
class _Task:
    batch: Batch
    hand: int
    found: Any
    """Ray's promise of the results."""


class _Crew:
    """The processes of the cluster that work for this one, and what they have in hand."""

    def __init__(self, ray: Any, make: Any, seconds: float, late: Callable[[Any], Any]) -> None:
        self._ray, self._make, self._seconds, self._late = ray, make, seconds, late
        self._kind = ray.remote(num_cpus=HAND_CPUS)(Hand)
        count = max(1, int(ray.cluster_resources().get("CPU", 1)))
        hands = [self._kind.remote(make) for _ in range(count)]
        ready = {hand.ready.remote(): hand for hand in hands}
        ray.wait(list(ready), num_returns=1, timeout=START_SECONDS)
        # Others may use the cluster too: who cannot begin soon after the first is not waited for.
        begun, _ = ray.wait(list(ready), num_returns=count, timeout=10)
        self._hands = [ready[one] for one in begun]
        for hand in hands:
            if hand not in self._hands:
                ray.kill(hand)
        if not self._hands:
            raise EnvironmentProblem(
                "the cluster has no process to spare",
                where="processes: ray",
                found=f"none of {count} began in {START_SECONDS} s",
                remedy="wait until it is free, and see that kogata is installed on every node",
            )
        self.size = len(self._hands)
        self.waiting: deque[_Task] = deque()
        self._turn = 0

    def give(self, batch: Batch) -> None:
        """Gives a batch to the process whose turn it is."""
        at = self._turn
        self._turn = (at + 1) % self.size
        self.waiting.append(_Task(batch, at, self._hands[at].work.remote(batch)))

    def take(self) -> Batch:
        """Waits for the batch that was given first."""
        task = self.waiting.popleft()
        try:
            return self._got(task.found, len(task.batch))
        except (self._ray.exceptions.GetTimeoutError, self._ray.exceptions.RayActorError):
            made = self._one_by_one(task)
        for other in self.waiting:
            if other.hand == task.hand:
                other.found = self._hands[other.hand].work.remote(other.batch)
        return made

    def _one_by_one(self, task: _Task) -> Batch:
        made: Batch = []
        self._replace(task.hand)
        for item in task.batch:
            for _ in range(TRIES):
                try:
                    made += self._got(self._hands[task.hand].work.remote([item]), 1)
                    break
                except self._ray.exceptions.GetTimeoutError:
                    made.append(self._late(item))
                    self._replace(task.hand)
                    break
                except self._ray.exceptions.RayActorError:
                    self._replace(task.hand)
            else:
                raise KogataError(
                    "a process of the cluster died again and again",
                    where="processes: ray",
                    found=f"{TRIES} times, on {getattr(item, 'id', 'one item')}",
                    remedy="give its nodes more memory, or set processes: 1 to see why",
                )
        return made

    def _got(self, found: Any, items: int) -> Batch:
        limit = self._seconds * items
        result = self._ray.get(found, timeout=limit if math.isfinite(limit) else None)
        if isinstance(result, dict):
            raise KogataError.from_dict(result)
        return result

    def _replace(self, at: int) -> None:
        self._ray.kill(self._hands[at])
        self._hands[at] = self._kind.remote(self._make)
        self._ray.get(self._hands[at].ready.remote(), timeout=START_SECONDS)

    def leave(self) -> None:
        """Ends the processes."""
        if not self._ray.is_initialized():
            return
        for hand in self._hands:
            self._ray.kill(hand)
