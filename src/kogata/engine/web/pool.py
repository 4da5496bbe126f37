"""Pages converted in several processes, in the order they came: the same documents as with one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from kogata.core.errors import KogataError
from kogata.engine.web.convert import Converter, Outcome
from kogata.engine.web.page import Page

BATCH = 24
"""Pages sent at a time. A process has one batch: sending more could block while it sends what it made."""


def convert(pages: Iterable[Page], converter: Converter, processes: int) -> Iterator[Outcome]:
    """Yields what becomes of each page, in order.

    Args:
        pages: read in this process, one after another.
        converter: what is done with each.
        processes: how many do it; 1 does it here.
    """
    if processes <= 1:
        yield from map(converter.start(), pages)
        return
    import multiprocessing

    # A fresh interpreter each: this process may be importing torch in a thread, which a fork would freeze.
    context = multiprocessing.get_context("spawn")
    pipes: list[Any] = []
    workers: list[Any] = []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, converter), daemon=True)
            worker.start()
            theirs.close()
            pipes.append(ours)
            workers.append(worker)
        stream = iter(pages)
        waiting: deque[Any] = deque()
        for pipe in pipes:
            if batch := list(islice(stream, BATCH)):
                _send(pipe, batch)
                waiting.append(pipe)
        while waiting:
            pipe = waiting.popleft()
            found = _received(pipe)
            # It has its next pages before these are passed on, so that it works while others use them.
            if batch := list(islice(stream, BATCH)):
                _send(pipe, batch)
                waiting.append(pipe)
            yield from found
    finally:
        for pipe in pipes:
            pipe.close()
        for worker in workers:
            worker.join(timeout=5)
            if worker.is_alive():
                worker.terminate()


def _send(pipe: Any, batch: list[Page]) -> None:
    try:
        pipe.send(batch)
    except OSError:  # it is gone; what it said before, if anything, is asked for next
        pass


def _received(pipe: Any) -> list[Outcome]:
    try:
        found = pipe.recv()
    except (EOFError, OSError):
        raise KogataError(
            "a process that converts pages was killed",
            where="data.extract",
            remedy="give it more memory, or set processes: 1 to find the page",
        ) from None
    if isinstance(found, dict):
        raise KogataError.from_dict(found)
    return found


def _work(pipe: Any, converter: Converter) -> None:
    """Converts batches until the pipe closes, which it does too when the parent dies."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        step = converter.start()
        while True:
            pipe.send([step(page) for page in pipe.recv()])
    except (EOFError, OSError):
        return
    except KogataError as error:
        pipe.send(error.to_dict())
