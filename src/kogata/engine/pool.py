"""Items worked on in several processes, or on a cluster, in the order they came: the same as with one."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Protocol

from kogata.core.errors import KogataError
from kogata.engine.limit import Limit

BATCH = 24
"""Items sent at a time. A process has one batch: sending more could block while it sends what it made."""
PATIENCE = 5
"""Times the limit of an item, by the clock, after which a process that does not end it itself is ended."""


class Work(Protocol):
    """What is done with each item; plain values only, so that it can be sent to another process."""

    stage: ClassVar[str]
    """The stage that works, for errors."""

    @property
    def seconds(self) -> float:
        """Gives the CPU seconds an item may take; infinite for no limit."""
        ...

    def start(self) -> Callable[[Any], Any]:
        """Loads what is needed and gives the function from an item to what becomes of it."""
        ...

    def late(self, item: Any, /) -> Any:
        """Gives what becomes of an item that takes longer."""
        ...


class Unlimited:
    """Base of work whose items may take their time."""

    @property
    def seconds(self) -> float:
        """Gives no limit."""
        return math.inf

    def late(self, item: Any, /) -> Any:
        """Is never asked."""
        raise AssertionError(item)


Spread = Callable[[Callable[[], Any], Iterable[list[Any]], float, Callable[[Any], Any]], Any]
"""Maps batches on a cluster, as `Bench.spread` does."""


def through(
    items: Iterable[Any], work: Work, processes: int, spread: Spread | None = None, batch: int | None = None
) -> Generator[Any]:
    """Yields what becomes of each item, in order.

    Args:
        items: read in this process, one after another.
        work: what is done with each.
        processes: how many do it; 1 does it here.
        spread: hands batches to a cluster instead.
        batch: items sent at a time.
    """
    stream = iter(items)
    size = batch or BATCH
    if spread is not None:
        batches = iter(lambda: list(islice(stream, size)), [])
        for found in spread(Batches(work), batches, PATIENCE * work.seconds, work.late):
            yield from found
        return
    if processes <= 1:
        with Limit(work.seconds, work.late) as limit:
            yield from map(partial(limit, work.start()), stream)
        return
    helpers = [_Helper(work) for _ in range(processes)]
    try:
        for helper in helpers:
            helper.start()
        waiting: deque[_Helper] = deque()
        for helper in helpers:
            if given := list(islice(stream, size)):
                helper.send(given)
                waiting.append(helper)
        while waiting:
            helper = waiting.popleft()
            found = helper.take()
            # It has its next items before these are passed on, so that it works while others use them.
            if given := list(islice(stream, size)):
                helper.send(given)
                waiting.append(helper)
            yield from found
    finally:
        for helper in helpers:
            helper.let_go()
        for helper in helpers:
            helper.end()


def paired(
    items: Iterable[Any], work: Work, processes: int, spread: Spread | None = None, batch: int | None = None
) -> Generator[tuple[Any, Any]]:
    """Yields each item with what becomes of it, in order; arguments as of `through`."""
    sent: deque[Any] = deque()

    def noted() -> Generator[Any]:
        for item in items:
            sent.append(item)
            yield item

    found = through(noted(), work, processes, spread, batch)
    try:
        for outcome in found:
            yield sent.popleft(), outcome
    finally:
        found.close()


@dataclass(frozen=True)
class Batches:
    """What a process of a cluster does; plain values only."""

    work: Work

    def __call__(self) -> Callable[[list[Any]], list[Any]]:
        """Loads what is needed and gives the function from items to what becomes of them."""
        step = self.work.start()

        def of_batch(batch: list[Any]) -> list[Any]:
            with Limit(self.work.seconds, self.work.late) as limit:
                return [limit(step, item) for item in batch]

        return of_batch


class _Helper:
    """A process that works, as its parent sees it; one that hangs is ended and begins anew."""

    def __init__(self, work: Work) -> None:
        import multiprocessing

        # A fresh interpreter: this process may be importing torch in a thread, which a fork would freeze.
        self._context = multiprocessing.get_context("spawn")
        self._work_of = work
        self._patience = PATIENCE * work.seconds if math.isfinite(work.seconds) else None
        self._batch: list[Any] = []
        self._pipe: Any = None
        self._process: Any = None

    def start(self) -> None:
        """Starts the process."""
        self._pipe, theirs = self._context.Pipe()
        self._place = self._context.RawValue("i", -1)
        self._process = self._context.Process(
            target=_work, args=(theirs, self._work_of, self._place), daemon=True
        )
        self._process.start()
        theirs.close()

    def send(self, batch: list[Any]) -> None:
        """Gives it its next items."""
        self._batch = batch
        self._place.value = -1
        # It may be gone; what it said before, if anything, is asked for next.
        with suppress(OSError):
            self._pipe.send(batch)

    def take(self) -> list[Any]:
        """Waits for what became of its items."""
        made: list[Any] = []
        while True:
            hangs = self._wait()
            if hangs is None:
                return made + self._received()
            # The process ends with what it made of the items before; they are few, and are done again.
            self.let_go()
            self._process.kill()
            self._process.join()
            before, item, after = self._batch[:hangs], self._batch[hangs], self._batch[hangs + 1 :]
            self.start()
            if before:
                self.send(before)
                made += self.take()
            made.append(self._work_of.late(item))
            self.send(after)

    def _wait(self) -> int | None:
        """Waits for an answer; gives the place of the item in hand when that does not end."""
        while True:
            place = self._place.value
            if self._pipe.poll(self._patience):
                return None
            if place == self._place.value and 0 <= place < len(self._batch):
                return place

    def _received(self) -> list[Any]:
        try:
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise KogataError(
                f"a process of {self._work_of.stage} was killed",
                where=f"{self._work_of.stage}, processes",
                remedy="give it more memory, or set processes: 1 to find what it was on",
            ) from None
        if isinstance(found, dict):
            raise KogataError.from_dict(found)
        return found

    def let_go(self) -> None:
        """Closes the pipe, upon which an idle process ends."""
        if self._pipe is not None:
            self._pipe.close()

    def end(self) -> None:
        """Sees the process end."""
        if self._process is not None:
            self._process.join(timeout=5)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


def _work(pipe: Any, work: Work, place: Any) -> None:
    """Works on batches until the pipe closes, which it does too when the parent dies.

    Args:
        pipe: batches in, what becomes of them out.
        work: what is done with each item.
        place: shared with the parent: the item in hand, counted in its batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        step = work.start()
        with Limit(work.seconds, work.late) as limit:
            while True:
                found = []
                for number, item in enumerate(pipe.recv()):
                    place.value = number
                    found.append(limit(step, item))
                place.value = -1
                pipe.send(found)
    except (EOFError, OSError):
        return
    except KogataError as error:
        pipe.send(error.to_dict())
