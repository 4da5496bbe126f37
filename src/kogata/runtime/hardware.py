"""What the computer is and how much of it this process may use: cores, memory, chip, compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
NO_LIMIT_BYTES = 1 << 60
"""Version 1 of control groups writes a number near 2⁶³ where there is no limit."""


# Control groups (containers, batch systems)


def _cgroup_folders(controller: str) -> list[Path]:
    """Lists the folders whose limits bind this process, from its own control group up to the root's."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "":
            roots = [
                root for root in (CGROUPS, CGROUPS / "unified") if (root / "cgroup.controllers").exists()
            ]
        elif controller in names.split(","):
            roots = [CGROUPS / controller, CGROUPS / names]
        else:
            continue
        for root in roots:
            folder = root / path.lstrip("/")
            # Inside a container the path may be the host's; then only the root is there.
            found += [
                item for item in (folder, *folder.parents) if item.is_relative_to(root) and item.is_dir()
            ]
    return list(dict.fromkeys(found))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def cpu_quota() -> float | None:
    """Gives the cores' worth of time the control groups allow; None without a limit."""
    quotas: list[float] = []
    for folder in _cgroup_folders("cpu"):
        text = _read(folder / "cpu.max")
        if text is not None and not text.startswith("max"):
            quota, period = (text.split() + ["100000"])[:2]
            quotas.append(int(quota) / int(period))
        old_quota, old_period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if old_quota is not None and old_quota > 0 and old_period:
            quotas.append(old_quota / old_period)
    return min(quotas, default=None)


def allowed_cores() -> int:
    """Counts the cores this process may use: affinity, and the time its control groups allow, rounded."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def memory_limit() -> int | None:
    """Gives the bytes the control groups allow; None without a limit below the computer's own memory."""
    limits: list[int] = []
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None and limit < NO_LIMIT_BYTES:
                limits.append(limit)
    limit = min(limits, default=None)
    return limit if limit is not None and limit < physical_memory() else None


def physical_memory() -> int:
    """Gives the bytes of memory the computer has."""
    import psutil

    return psutil.virtual_memory().total


def available_memory() -> int:
    """Gives the bytes a new program can have now without swapping, the control groups' limits respected."""
    import psutil

    free = [psutil.virtual_memory().available]
    for folder in _cgroup_folders("memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < NO_LIMIT_BYTES:
                free.append(limit - used + _reclaimable(folder))
    return max(0, min(free))


def _reclaimable(folder: Path) -> int:
    """Gives the bytes of files the kernel drops when memory is wanted; they count as used."""
    rows = dict(
        line.split(maxsplit=1) for line in (_read(folder / "memory.stat") or "").splitlines() if " " in line
    )
    return int(rows.get("total_inactive_file", rows.get("inactive_file", "0")))


# The chip


@cache
def _cpuinfo() -> dict[str, str]:
    text = _read(Path("/proc/cpuinfo")) or ""
    rows: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        rows[key.strip()] = value.strip()
    return rows


def cpu_model() -> str:
    """Names the chip."""
    rows = _cpuinfo()
    name = rows.get("model name") or rows.get("Model") or rows.get("Hardware")
    if name is None and sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            name = subprocess.run(asked, capture_output=True, text=True, timeout=5).stdout.strip()
    return name or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Gives the chip's feature flags as the kernel names them; empty where it does not say."""
    rows = _cpuinfo()
    return set((rows.get("flags") or rows.get("Features") or "").split())


SHOWN_FLAGS = (
    "avx2 fma avx512f avx512_bf16 avx512_vnni avx_vnni amx_bf16 amx_int8 "
    "asimd sve bf16 i8mm"
).split()  # fmt: skip


def isa() -> str:
    """Names the vector instructions that matter for training: `avx2 fma`."""
    flags = cpu_flags()
    return " ".join(flag for flag in SHOWN_FLAGS if flag in flags) or platform.machine().lower()


def virtualised() -> bool:
    """Says whether this is a virtual machine (whose energy counters are the host's secret)."""
    return "hypervisor" in cpu_flags()


def gpus() -> list[str]:
    """Names the NVIDIA GPUs the driver shows, without loading any library; empty where there is none."""
    found: list[str] = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        rows = (_read(path) or "").splitlines()
        found += [row.partition(":")[2].strip() for row in rows if row.startswith("Model")]
    return found


def compiler() -> str | None:
    """Finds the C++ compiler `torch.compile` would use: `$CXX`, g++, clang++ or cl, with Python's headers."""
    # Compiled kernels include Python.h; without it the compiler alone is of no use.
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return None
    chosen = os.environ.get("CXX")
    names = [chosen] if chosen else ["cl"] if sys.platform == "win32" else ["g++", "clang++", "c++"]
    return next((found for name in names if (found := shutil.which(name))), None)
