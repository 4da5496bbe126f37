"""Files, locks, limits and parents, as the system gives and refuses them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kogata.core.errors import ArtifactError, EnvironmentProblem, Stopped
from kogata.runtime import hardware, system
from kogata.runtime.system import explain_os_error, file_lock, free_disk, home, storage_errors, write_beside

LINUX = sys.platform.startswith("linux")
SOURCES = str(Path(system.__file__).parents[2])


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(true: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Folders


def test_home_is_chosen_or_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KOGATA_HOME", str(tmp_path / "棚"))
    assert home() == tmp_path / "棚"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOGATA_HOME", "here")
    assert home() == tmp_path / "here"
    monkeypatch.setenv("KOGATA_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert home() == tmp_path / "cache" / "kogata"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / "Library" / "Caches" / "kogata"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert home() == tmp_path / "Local" / "kogata"


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KOGATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(EnvironmentProblem, match="KOGATA_HOME=/some/folder"):
        home()


def test_free_disk_of_what_does_not_exist_yet(tmp_path: Path) -> None:
    free = free_disk(tmp_path / "not" / "yet")
    assert free is not None and free > 0


# Writing


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / ("結果" * 40 + ".json")
    write_beside(path, "日本語")
    write_beside(path, b"new", sync=False)
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == [path.name], "nothing lies beside it"
    if os.name == "posix":
        (tmp_path / "plain").write_text("")
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_beside(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(system, "free_disk", lambda path: 1 << 20)
    with pytest.raises(EnvironmentProblem) as caught:
        write_beside(path, b"x" * 4096)
    assert str(caught.value) == (
        "the disk is full\n"
        f"  at: {path}\n"
        "  found: 1MiB free\n"
        "  expected: 4KiB more\n"
        "  remedy: free some space (`kogata store free` removes unfinished work), "
        "or set KOGATA_HOME to a folder on another disk; the same command then goes on"
    )
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_disk() -> None:
    with pytest.raises(EnvironmentProblem, match="the disk is full"), storage_errors(Path("/dev/full")):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")


def test_no_permission_names_the_owner(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    told = explain_os_error(error)
    assert isinstance(told, EnvironmentProblem)
    assert told.what == "no permission to write or read here" and told.where == str(tmp_path / "x")
    if os.name == "posix":
        assert f"{tmp_path} belongs to " in str(told.found)
    assert "KOGATA_HOME" in str(told.remedy)


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "文.txt").write_text("x")
    with pytest.raises(EnvironmentProblem) as caught, file_lock(tmp_path / "文.txt" / "store" / "a.lock"):
        pass
    assert caught.value.what == "a file stands where a folder is needed"
    assert caught.value.found == f"{tmp_path / '文.txt'} is a file"
    assert "KOGATA_HOME" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EDQUOT, "x"), "the quota is used up"),
        (OSError(errno.EROFS, "x"), "the disk cannot be written"),
        (OSError(errno.ENAMETOOLONG, "x"), "the file's name is too long"),
        (OSError(errno.EMFILE, "x"), "too many files are open"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("Permission denied (os error 13)"), "no permission to write or read here"),
        (ArtifactError("as it is"), "as it is"),
    ],
)
def test_what_the_system_refuses(error: Exception, what: str) -> None:
    told = explain_os_error(error, "p")
    assert told is not None and told.what == what


def test_what_is_no_storage_problem_passes() -> None:
    assert explain_os_error(FileNotFoundError(errno.ENOENT, "x")) is None
    with pytest.raises(KeyError), storage_errors("p"):
        raise KeyError("x")
    with pytest.raises(ArtifactError, match="^mine$"), storage_errors("p"):
        raise ArtifactError("mine")


# Locks


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "鍵.lock"
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with file_lock(path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert os.name != "posix" or not path.exists(), "the last one tidies up"


def test_processes_exclude_each_other_and_death_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.lock"
    code = (
        "import sys, time; from pathlib import Path; from kogata.runtime.system import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    other = python(code, str(path))
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(EnvironmentProblem, match=f"held by process {other.pid}"),
            file_lock(path, timeout=0.1),
        ):
            pass
        monkeypatch.setattr(system, "SAY_AFTER_SECONDS", 0.1)
        said: list[str] = []
        asked = iter(range(100))
        with (
            pytest.raises(Stopped),
            file_lock(path, on_wait=said.append, stopping=lambda: next(asked) > 8),
        ):
            pass
        assert said == [f"waiting for another run (process {other.pid}) that makes the same thing: k"]
        os.kill(other.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        with file_lock(path, timeout=10):
            assert path.read_text() == str(os.getpid())
    finally:
        other.kill()
        other.communicate()


def test_a_failure_inside_lets_go(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), file_lock(tmp_path / "l", timeout=1):
            raise ValueError("x")


def test_where_the_file_system_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(system, "_lock_handle", unable)
    path = tmp_path / "l"
    with file_lock(path):
        assert (tmp_path / "l.held").read_text() == str(os.getpid())
        with pytest.raises(EnvironmentProblem), file_lock(path, timeout=0.1):
            pass
    assert not (tmp_path / "l.held").exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "l.held").write_text(str(ended.pid))
    with file_lock(path, timeout=5):
        pass


# Parent and child

CHILD = (
    "import os, sys, time; from kogata.runtime.system import die_with_parent\n"
    "die_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
)
PARENT = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
)


@pytest.mark.parametrize("way", ["kernel", "watch"])
def test_a_child_dies_with_its_parent(way: str) -> None:
    child = CHILD
    if way == "watch":
        child = "from kogata.runtime import system\nsystem.LINUX = False\n" + CHILD
    parent = python(PARENT, child)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            return "State:\tZ" in Path(f"/proc/{pid}/status").read_text() if LINUX else not system._alive(pid)
        except OSError:
            return True

    wait_until(gone)
    parent.stdout.close()
    assert parent.stdin is not None
    parent.stdin.close()


@pytest.mark.skipif(not LINUX, reason="prctl")
def test_a_child_whose_parent_is_gone_already_ends() -> None:
    child = python("from kogata.runtime.system import die_with_parent; die_with_parent(1); print('alive')")
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 1 and out == ""


def test_when_this_process_started() -> None:
    code = (
        "import time; time.sleep(0.3)\n"
        "from kogata.runtime import system\n"
        "print(time.monotonic() - system.process_started())\n"
        "system.LINUX = False\nprint(time.monotonic() - system.process_started())"
    )
    begun = time.monotonic()
    out, _ = python(code).communicate(timeout=30)
    whole = time.monotonic() - begun
    exact, portable = map(float, out.split())
    if LINUX:
        assert 0.28 < exact <= whole + 0.05
    assert -0.8 < portable - exact < 1.2, "on Linux psutil knows the start of the computer to the second"


# Limits


def cgroup(folder: Path, own: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    monkeypatch.setattr(hardware, "CGROUPS", folder)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", folder / "own")
    monkeypatch.setattr(hardware, "physical_memory", lambda: 16 << 30)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_limits_of_control_groups_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cgroup.controllers": "cpu memory",
        "a/cpu.max": "max 100000",
        "a/b/cpu.max": "250000 100000\n",
        "a/memory.max": str(2 << 30),
        "a/memory.current": str(1 << 30),
        "a/memory.stat": "anon 5\ninactive_file 1000\n",
        "a/b/memory.max": "max",
    }
    cgroup(tmp_path, "0::/a/b\n", files, monkeypatch)
    assert hardware.cpu_quota() == 2.5
    if hasattr(os, "sched_getaffinity"):
        assert system.allowed_cores() == 2
    assert system.memory_limit() == 2 << 30
    assert 0 < system.available_memory() <= (1 << 30) + 1000


def test_limits_of_control_groups_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu/j/cpu.cfs_quota_us": "30000",
        "cpu/j/cpu.cfs_period_us": "100000",
        "memory/j/memory.limit_in_bytes": str(3 << 30),
        "memory/j/memory.usage_in_bytes": str(4 << 30),
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    cgroup(tmp_path, "4:memory:/j\n2:cpu,cpuacct:/j\n1:name=systemd:/\n", files, monkeypatch)
    assert hardware.cpu_quota() == 0.3 and system.allowed_cores() == 1
    assert system.memory_limit() == 3 << 30
    assert system.available_memory() == 0


def test_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup(
        tmp_path,
        "0::/host/path/not/seen/here\n",
        {"cgroup.controllers": "", "memory.max": "max"},
        monkeypatch,
    )
    assert hardware.cpu_quota() is None and system.memory_limit() is None
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "none")
    assert hardware.cpu_quota() is None and system.allowed_cores() >= 1
    cgroup(tmp_path, "0::/\n", {"cgroup.controllers": "", "memory.max": str(64 << 30)}, monkeypatch)
    assert system.memory_limit() is None, "a limit above the computer's memory binds nothing"


def test_a_compiler_needs_the_headers_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert system.compiler() is None
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(
        hardware.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "clang++" else None
    )
    monkeypatch.delenv("CXX", raising=False)
    assert system.compiler() == "/usr/bin/clang++"
    monkeypatch.setenv("CXX", "missing-compiler")
    assert system.compiler() is None


def test_the_chip_is_named() -> None:
    assert hardware.cpu_model() and hardware.isa()
