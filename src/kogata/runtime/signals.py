"""Signals: Ctrl-C, SIGTERM and SIGUSR1 ask a run to stop; it checkpoints and leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def listening(asked: list[int]) -> Iterator[None]:
    """Collects Ctrl-C, SIGTERM and SIGUSR1 instead of dying of them; only in the main thread."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum: int, frame: Any) -> None:
        if asked and signum == signal.SIGINT and asked[0] == signal.SIGINT and len(asked) > 1:
            raise KeyboardInterrupt
        asked.append(signum)

    before = {name: signal.signal(getattr(signal, name), note) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
