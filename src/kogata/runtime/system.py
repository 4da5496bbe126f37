"""What differs between operating systems: files, locks, parent and child, limits.

Linux is tested; every function has a portable fallback: macOS and Windows lose precision, not function.
The computer's own facts lie in `hardware.py`, what is asked of other processes in `processes.py`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from kogata.core.amounts import format_bytes
from kogata.core.errors import EnvironmentProblem, KogataError, Stopped
from kogata.runtime.hardware import allowed_cores as allowed_cores
from kogata.runtime.hardware import available_memory as available_memory
from kogata.runtime.hardware import compiler as compiler
from kogata.runtime.hardware import memory_limit as memory_limit

LINUX = sys.platform.startswith("linux")
POLL_SECONDS = 0.05
SAY_AFTER_SECONDS = 2.0
"""A wait that is over sooner is not worth a line on the screen."""


# Folders and files


def home() -> Path:
    """Gives Kogata's own folder: `$KOGATA_HOME`, else `kogata` in the user's cache folder."""
    chosen = os.environ.get("KOGATA_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise EnvironmentProblem(
            "this user has no home folder",
            remedy="say where Kogata may keep its files: KOGATA_HOME=/some/folder",
        ) from None
    return (base / "kogata").absolute()


def free_disk(path: Path) -> int | None:
    """Gives the bytes this user may still write where a path lies or will lie; None when unknown."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def explain_os_error(
    error: BaseException, path: Path | str | None = None, needed: int | None = None
) -> KogataError | None:
    """Turns a full disk, a missing permission and the like into a message with a remedy; None for the rest.

    Libraries hide the number of the error in their own exceptions, so the text is looked at too.
    """
    if isinstance(error, KogataError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if path is None and isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        path = os.fsdecode(error.filename)
    where = str(path) if path is not None else None
    if number in (errno.ENOSPC, errno.EDQUOT) or re.search(r"No space left on device|os error 28\b", text):
        free = free_disk(Path(path)) if path is not None else None
        return EnvironmentProblem(
            "the quota is used up" if number == errno.EDQUOT else "the disk is full",
            where=where,
            found=f"{format_bytes(free)} free" if free is not None else None,
            expected=f"{format_bytes(needed)} more" if needed else None,
            remedy="free some space (`kogata store free` removes unfinished work), "
            "or set KOGATA_HOME to a folder on another disk; the same command then goes on",
        )
    if number == errno.EROFS:
        return EnvironmentProblem(
            "the disk cannot be written", where=where, found="a read-only file system", remedy=_ELSEWHERE
        )
    if number in (errno.EACCES, errno.EPERM) or (number is None and "os error 13" in text):
        return EnvironmentProblem(
            "no permission to write or read here",
            where=where,
            found=_owner(path),
            remedy=f"give yourself the permission, or {_ELSEWHERE}",
        )
    if number in (errno.ENOTDIR, errno.EEXIST) and (file := _first_file(path)):
        return EnvironmentProblem(
            "a file stands where a folder is needed",
            where=where,
            found=f"{file} is a file",
            remedy=_ELSEWHERE,
        )
    if number == errno.ENAMETOOLONG:
        return EnvironmentProblem("the file's name is too long", where=where, remedy="give it a shorter name")
    if number in (errno.EMFILE, errno.ENFILE):
        return EnvironmentProblem(
            "too many files are open", where=where, remedy="raise the limit (`ulimit -n 4096`) and run again"
        )
    return None


_ELSEWHERE = "write elsewhere (--out DIR for the run, KOGATA_HOME for the store)"


def _first_file(path: Path | str | None) -> Path | None:
    place = Path(path).absolute() if path is not None else None
    files = [one for one in (place, *place.parents) if one.is_file()] if place is not None else []
    return files[-1] if files else None


def _owner(path: Path | str | None) -> str | None:
    place = Path(path).absolute() if path is not None else None
    while place is not None and not place.exists() and place != place.parent:
        place = place.parent
    if place is None:
        return None
    try:
        return f"{place} belongs to {place.owner()}, mode {place.stat().st_mode & 0o777:o}"
    except (OSError, KeyError, NotImplementedError):
        return None


@contextmanager
def storage_errors(path: Path | str | None = None, needed: int | None = None) -> Iterator[None]:
    """Lets a full disk or a missing permission inside the block be told as an `EnvironmentProblem`."""
    try:
        yield
    except Exception as error:
        known = explain_os_error(error, path, needed)
        if known is None or known is error:
            raise
        raise known from error


def write_beside(path: Path, data: bytes | str, *, sync: bool = True) -> None:
    """Replaces a file as a whole: written beside it, forced to disk (`sync`), renamed over it.

    Raises:
        EnvironmentProblem: the disk is full or may not be written; the old file is as it was.
    """
    content = data.encode() if isinstance(data, str) else data
    # A short name of its own: the target's may be as long as the file system allows.
    beside = (
        path.parent / f".kogata-{os.getpid()}-{threading.get_ident() % 10**6}-{time.monotonic_ns() % 10**9}"
    )
    with storage_errors(path, len(content)):
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        if sync:
            _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Forces the rename itself to disk, where a folder can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Locks


@contextmanager
def file_lock(
    path: Path,
    *,
    on_wait: Callable[[str], Any] | None = None,
    stopping: Callable[[], bool] | None = None,
    timeout: float | None = None,
) -> Iterator[None]:
    """Holds a lock that other processes (and threads) respect; it goes when its holder dies.

    Waits while another holds it, and says so once after two seconds.

    Args:
        path: the lock's file; made when missing, removed when released.
        on_wait: told the line about waiting; default is standard error.
        stopping: asked while waiting; when true, the wait ends with `Stopped`.
        timeout: seconds to wait at most; None waits on.

    Raises:
        EnvironmentProblem: the timeout passed, or the file cannot be made.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    start, said = time.monotonic(), False
    while (release := _try_lock(path)) is None:
        waited = time.monotonic() - start
        if stopping is not None and stopping():
            raise Stopped("stopped while waiting for another run", where=str(path))
        if timeout is not None and waited >= timeout:
            raise EnvironmentProblem(
                "another process does not let go of a lock",
                where=str(path),
                found=f"held by {_holder(path)} for {waited:.0f}s",
                remedy="wait for that process, or end it",
            )
        if not said and waited >= SAY_AFTER_SECONDS:
            said = True
            line = f"waiting for another run ({_holder(path)}) that makes the same thing: {path.stem[:16]}"
            on_wait(line) if on_wait else print(line, file=sys.stderr)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        release()


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        return f"process {int(path.read_bytes()[:32])}"
    return "another process"


def _try_lock(path: Path) -> Callable[[], None] | None:
    """Takes the lock and returns what releases it; None when another holds it."""
    with storage_errors(path):
        file = path.open("a+b")
    try:
        _lock_handle(file)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        # A file system without locks (some network disks).
        file.close()
        return _try_exclusive(path.with_name(path.name + ".held"))
    # The last holder removes the file: whoever opened it before that holds a lock on nothing.
    if not _same_file(path, file):
        file.close()
        return None
    with suppress(OSError):
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()

    def release() -> None:
        with suppress(OSError):
            if sys.platform != "win32":
                path.unlink()
        with suppress(OSError):
            _unlock_handle(file)
        file.close()

    return release


def _same_file(path: Path, file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # past the content, so that the holder's number stays readable

    def _lock_handle(file: IO[bytes]) -> None:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
        finally:
            file.seek(0)

    def _unlock_handle(file: IO[bytes]) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_handle(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock_handle(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _try_exclusive(path: Path) -> Callable[[], None] | None:
    """The lock of last resort: a file that may be made only once, void when its maker is dead."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        with suppress(OSError, ValueError):
            if not _alive(int(path.read_bytes()[:32])):
                path.unlink()
        return None
    os.write(handle, str(os.getpid()).encode())
    os.close(handle)
    return lambda: path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


# Parent and child


def die_with_parent(parent: int | None = None) -> None:
    """Lets this process be killed when its parent dies, so that no worker outlives its run.

    On Linux the kernel does it, when the *thread* that started this process ends; a run therefore starts its
    workers from its main thread. Elsewhere a thread looks once a second.

    Args:
        parent: the process expected to be the parent; when it is gone already, this process ends at once.
    """
    expected = parent if parent is not None else os.getppid()
    if LINUX:
        import ctypes

        with suppress(OSError, AttributeError):
            set_death_signal = 1
            if ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, int(signal.SIGKILL), 0, 0, 0) == 0:
                if os.getppid() != expected:
                    os._exit(1)
                return
    threading.Thread(target=_watch_parent, args=(expected,), daemon=True, name="watch-parent").start()


def _watch_parent(parent: int, seconds: float = 1.0) -> None:
    while os.getppid() == parent and (sys.platform != "win32" or _alive(parent)):
        time.sleep(seconds)
    os._exit(1)


def process_started() -> float:
    """Gives when this process started on `time.monotonic()`'s scale, before any of our code ran."""
    if LINUX:
        with suppress(OSError, ValueError, IndexError):
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
            if age >= 0:
                return time.monotonic() - age
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())
