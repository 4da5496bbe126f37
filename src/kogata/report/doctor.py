"""What this computer has and what is missing; nothing is changed but the kept profile of its speed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kogata.core.amounts import format_bytes, format_count

NEEDED = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "pydantic", "rich",
    "ruamel.yaml", "jinja2", "psutil", "xxhash", "zstandard", "gguf", "xllamacpp",
)  # fmt: skip
OPTIONAL = {"datasets": "data.read by the name of a Hugging Face data set", "nvidia-ml-py": "energy of a GPU"}
LEAST_DISK = 2 * 2**30
LEAST_MEMORY = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: `good`, `note` (works without) or `bad` (does not)."""

    name: str
    state: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)


def examine() -> list[Check]:
    """Looks at Python, packages, compiler, speed, memory, disk, llama.cpp and the store."""
    return [
        _python(),
        *(_package(name) for name in NEEDED),
        *(_optional(name, use) for name, use in OPTIONAL.items()),
        _llama(),
        _compiler(),
        _cores(),
        _speed(),
        _memory(),
        _disk(),
    ]


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    return Check(
        name="python", state="good" if good else "bad", found=found, remedy="" if good else "3.11 or newer"
    )


def _package(name: str) -> Check:
    try:
        return Check(name=name, state="good", found=metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name=name, state="bad", found="not installed", remedy=f"pip install {name}")


def _optional(name: str, use: str) -> Check:
    found = _package(name)
    if found.state == "good":
        return found
    return Check(name=name, state="note", found=f"not installed ({use})", remedy=f"pip install {name}")


def _llama() -> Check:
    if importlib.util.find_spec("xllamacpp") is None:
        return Check(name="llama.cpp", state="bad", found="not installed", remedy="pip install xllamacpp")
    import subprocess

    # In a process of its own: a build for another processor ends it with a signal.
    done = subprocess.run([sys.executable, "-c", "import xllamacpp"], capture_output=True, timeout=120)
    if done.returncode == 0:
        return Check(name="llama.cpp", state="good", found="loads")
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    return Check(name="llama.cpp", state="note", found=last[0], remedy="GGUF files will not be scored here")


def _compiler() -> Check:
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return Check(name="C++ compiler", state="good", found=name)
    return Check(
        name="C++ compiler",
        state="note",
        found="none: torch.compile is skipped",
        remedy="apt install g++, or alike",
    )


def _cores() -> Check:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check(name="cores", state="good", found=f"{allowed} of {os.cpu_count()} allowed")


def _speed() -> Check:
    """Says how fast the computer is, as plans take it: measured now where no run has measured it yet."""
    from kogata.core.errors import KogataError
    from kogata.runtime.machine import profile_machine

    try:
        profile = profile_machine()
    except KogataError as error:
        return Check(name="speed", state="bad", found=error.what, remedy=error.remedy or "")
    machine = profile.machine
    rates = {"products": (machine.gemm_flops, "FLOP/s"), "in bf16": (machine.bf16_flops, "FLOP/s"),
             "copying": (machine.stream_bytes, "B/s"),
             "text on one core": (machine.text_bytes, "B/s")}  # fmt: skip
    found = ", ".join(f"{name} {format_count(rate)}{unit}" for name, (rate, unit) in rates.items() if rate)
    if profile.busy:
        remedy = "other programs were at work while it was measured; a later run measures it once more"
        return Check(name="speed", state="note", found=found, remedy=remedy)
    return Check(name="speed", state="good", found=found)


def _memory() -> Check:
    import psutil

    found = psutil.virtual_memory()
    text = f"{format_bytes(found.available)} free of {format_bytes(found.total)}"
    return Check(name="memory", state="good" if found.available >= LEAST_MEMORY else "note", found=text)


def _disk() -> Check:
    from kogata.runtime.system import home

    place = home()
    near = place
    while not near.exists() and near != near.parent:
        near = near.parent
    free = shutil.disk_usage(near).free
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        remedy = "set KOGATA_HOME to a folder you may write to"
        return Check(name="store", state="bad", found=f"{place}: {error.strerror}", remedy=remedy)
    state = "good" if free >= LEAST_DISK else "note"
    remedy = "" if state == "good" else "kogata store free, or set KOGATA_HOME elsewhere"
    return Check(
        name="store", state=state, found=f"{_short(place)}, {format_bytes(free)} free", remedy=remedy
    )


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


def view(checks: list[Check]) -> RenderableType:
    """Shows the checks as a table."""
    marks = {"good": Text("✓", "green"), "note": Text("•", "yellow"), "bad": Text("✗", "bold red")}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(marks[check.state], check.name, check.found, Text(check.remedy, "dim"))
    return table
