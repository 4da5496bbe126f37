"""What the C library does with freed memory, told to it where that pays: Linux with glibc; else nothing."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

_TRIM, _MAP = -1, -3
"""Options of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD."""
_USUAL_TRIM, _USUAL_MAP = 256 << 10, 32 << 20


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            getattr(ctypes.CDLL(None), name)(*arguments)


def trim() -> None:
    """Gives freed memory back to the system without looking for garbage first."""
    _call("malloc_trim", 0)


def give_back() -> None:
    """Gives freed memory back to the system, so that a stage's peak is its own."""
    gc.collect()
    trim()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keeps freed memory for the next step within: taking it again page by page costs 5 % of a small step."""
    _call("mallopt", _MAP, 1 << 30)
    _call("mallopt", _TRIM, (1 << 31) - 1)
    try:
        yield
    finally:
        _call("mallopt", _MAP, _USUAL_MAP)
        _call("mallopt", _TRIM, _USUAL_TRIM)
        give_back()
