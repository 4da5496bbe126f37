"""Pages converted in several processes, in the order they came: the same documents as with one."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from kogata.core.errors import KogataError
from kogata.engine.web.convert import Converter, Outcome
from kogata.engine.web.limit import Limit, late
from kogata.engine.web.page import Page

BATCH = 24
"""Pages sent at a time. A process has one batch: sending more could block while it sends what it made."""
PATIENCE = 5
"""Times the limit of a page, by the clock, after which a process that does not end it itself is ended."""


Spread = Callable[[Callable[[], Any], Iterable[list[Any]], float, Callable[[Any], Any]], Any]
"""Maps batches on a cluster, as `Bench.spread` does."""


def convert(
    pages: Iterable[Page], converter: Converter, processes: int, spread: Spread | None = None
) -> Generator[Outcome]:
    """Yields what becomes of each page, in order.

    Args:
        pages: read in this process, one after another.
        converter: what is done with each.
        processes: how many do it; 1 does it here.
        spread: hands batches to a cluster instead.
    """
    if spread is not None:
        stream = iter(pages)
        batches = iter(lambda: list(islice(stream, BATCH)), [])
        for found in spread(Batches(converter), batches, PATIENCE * converter.page_seconds, late):
            yield from found
        return
    if processes <= 1:
        with Limit(converter.page_seconds) as limit:
            yield from map(partial(limit, converter.start()), pages)
        return
    helpers = [_Helper(converter) for _ in range(processes)]
    try:
        for helper in helpers:
            helper.start()
        stream = iter(pages)
        waiting: deque[_Helper] = deque()
        for helper in helpers:
            if batch := list(islice(stream, BATCH)):
                helper.send(batch)
                waiting.append(helper)
        while waiting:
            helper = waiting.popleft()
            found = helper.take()
            # It has its next pages before these are passed on, so that it works while others use them.
            if batch := list(islice(stream, BATCH)):
                helper.send(batch)
                waiting.append(helper)
            yield from found
    finally:
        for helper in helpers:
            helper.let_go()
        for helper in helpers:
            helper.end()


@dataclass(frozen=True)
class Batches:
    """What a process of a cluster does; plain values only."""

    converter: Converter

    def __call__(self) -> Callable[[list[Page]], list[Outcome]]:
        """Loads what is needed and gives the function from pages to what becomes of them."""
        step = self.converter.start()

        def convert_batch(batch: list[Page]) -> list[Outcome]:
            with Limit(self.converter.page_seconds) as limit:
                return [limit(step, page) for page in batch]

        return convert_batch


class _Helper:
    """A process that converts, as its parent sees it; one that hangs is ended and begins anew."""

    def __init__(self, converter: Converter) -> None:
        import multiprocessing

        # A fresh interpreter: this process may be importing torch in a thread, which a fork would freeze.
        self._context = multiprocessing.get_context("spawn")
        self._converter = converter
        self._patience = PATIENCE * converter.page_seconds
        self._batch: list[Page] = []
        self._pipe: Any = None
        self._process: Any = None

    def start(self) -> None:
        """Starts the process."""
        self._pipe, theirs = self._context.Pipe()
        self._place = self._context.RawValue("i", -1)
        self._process = self._context.Process(
            target=_work, args=(theirs, self._converter, self._place), daemon=True
        )
        self._process.start()
        theirs.close()

    def send(self, batch: list[Page]) -> None:
        """Gives it its next pages."""
        self._batch = batch
        self._place.value = -1
        # It may be gone; what it said before, if anything, is asked for next.
        with suppress(OSError):
            self._pipe.send(batch)

    def take(self) -> list[Outcome]:
        """Waits for what became of its pages."""
        made: list[Outcome] = []
        while True:
            hangs = self._wait()
            if hangs is None:
                return made + self._received()
            # The process ends with what it made of the pages before; they are few, and are done again.
            self.let_go()
            self._process.kill()
            self._process.join()
            before, page, after = self._batch[:hangs], self._batch[hangs], self._batch[hangs + 1 :]
            self.start()
            if before:
                self.send(before)
                made += self.take()
            made.append(late(page))
            self.send(after)

    def _wait(self) -> int | None:
        """Waits for an answer; gives the place of the page in hand when that does not end."""
        while True:
            place = self._place.value
            if self._pipe.poll(self._patience):
                return None
            if place == self._place.value and 0 <= place < len(self._batch):
                return place

    def _received(self) -> list[Outcome]:
        try:
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise KogataError(
                "a process that converts pages was killed",
                where="data.extract",
                remedy="give it more memory, or set processes: 1 to find the page",
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


def _work(pipe: Any, converter: Converter, place: Any) -> None:
    """Converts batches until the pipe closes, which it does too when the parent dies.

    Args:
        pipe: batches in, outcomes out.
        converter: what is done with each page.
        place: shared with the parent: the page in hand, counted in its batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        step = converter.start()
        with Limit(converter.page_seconds) as limit:
            while True:
                found = []
                for number, page in enumerate(pipe.recv()):
                    place.value = number
                    found.append(limit(step, page))
                place.value = -1
                pipe.send(found)
    except (EOFError, OSError):
        return
    except KogataError as error:
        pipe.send(error.to_dict())
