"""The time one page may take, counted as its own: a busy machine makes no page late."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from kogata.core.artifact import Document
from kogata.engine.web.convert import Outcome
from kogata.engine.web.page import Page

AGAIN = 0.05
"""CPU seconds after which a page that went on all the same is interrupted once more."""


class _Late(BaseException):
    """Interrupts a page; no `Exception`, for extractors catch those."""


def late(page: Page) -> Outcome:
    """Gives what becomes of a page that takes too long."""
    return Outcome(Document(page.id, "", source=page.source), "takes too long", page.url[:200] or None)


class Limit:
    """Ends a page after some CPU seconds of this process, whatever Python code it is in; leaves no thread.

    It interrupts between two steps of Python: code of an extension is not, which is why the pool watches its
    processes too. Where the system has no such timer, or outside the main thread, nothing is limited.

    Args:
        seconds: CPU seconds a page may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed = False
        self._works = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Limit:
        if self._works:
            self._before = signal.signal(signal.SIGVTALRM, self._ring)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._works:
            signal.signal(signal.SIGVTALRM, self._before)

    def _ring(self, signum: int, frame: Any) -> None:
        if self._armed:
            raise _Late

    def __call__(self, step: Callable[[Page], Outcome], page: Page) -> Outcome:
        """Gives what becomes of a page."""
        if not self._works:
            return step(page)
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds, AGAIN)
            return step(page)
        except _Late:
            self._armed = False
            return late(page)
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
