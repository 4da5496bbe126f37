"""The time one item may take, counted as its own: a busy machine makes no item late."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from typing import Any

AGAIN = 0.05
"""CPU seconds after which an item that went on all the same is interrupted once more."""


class _Late(BaseException):
    """Interrupts an item; no `Exception`, for extractors catch those."""


class Limit:
    """Ends an item after some CPU seconds of this process, whatever Python code it is in; leaves no thread.

    It interrupts between two steps of Python: code of an extension is not, which is why the pool watches its
    processes too. Where the system has no such timer, or outside the main thread, nothing is limited.

    Args:
        seconds: CPU seconds an item may take; infinite for no limit.
        late: gives what becomes of an item that takes longer.
    """

    def __init__(self, seconds: float, late: Callable[[Any], Any]) -> None:
        self._seconds, self._late = seconds, late
        self._armed = False
        self._works = (
            math.isfinite(seconds)
            and hasattr(signal, "setitimer")
            and threading.current_thread() is threading.main_thread()
        )

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

    def __call__(self, step: Callable[[Any], Any], item: Any) -> Any:
        """Gives what becomes of an item."""
        if not self._works:
            return step(item)
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds, AGAIN)
            return step(item)
        except _Late:
            self._armed = False
            return self._late(item)
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
