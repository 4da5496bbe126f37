"""What this computer is and can do: measured once, and kept.

A profile holds for one chip, number of allowed cores, memory limit and torch version. When other programs
took part of the cores while it was measured, it is measured again at a later start, and the best is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kogata.core.errors import EnvironmentProblem
from kogata.core.receipt import Machine
from kogata.core.registry import PACKAGE
from kogata.runtime import hardware
from kogata.runtime.energy import modelled_watts
from kogata.runtime.processes import LINUX
from kogata.runtime.system import file_lock, home, write_beside

PROBE = 3
"""Counts up when what is measured changes: a profile of an earlier count is made anew."""
PROBE_SECONDS = 2.5
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Without one of these a 16-bit product takes hundreds of times as long, and is not even measured."""
LONGEST_SECONDS = 120.0
"""Importing torch from a slow disk takes its time; more is a fault."""
BUSY_BELOW = 0.85
"""Got less of the cores' time: others were at work."""
TRIES = 5
AGAIN_SECONDS = 600.0
NOTICE = "measuring this computer, once (about 5 s, not counted as run time)"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A machine, its digest, and the seconds measuring took just now (0 when it was known)."""

    machine: Machine
    digest: str
    seconds: float
    path: Path
    """Where it is kept."""
    busy: bool = False
    """Whether others were at work while it was measured: it can do more than this says."""


def machine_profile(fresh: bool = False, say: Callable[[str], Any] | None = None) -> Machine:
    """Gives what this computer can do; see `profile_machine`."""
    return profile_machine(fresh, say).machine


def profile_machine(
    fresh: bool = False, say: Callable[[str], Any] | None = None, *, device: str = "auto"
) -> Profile:
    """Gives this computer's profile, measured in a child process the first time.

    Args:
        fresh: measure again.
        say: told that it measures; default is standard error.
        device: `auto` (a CUDA GPU where torch finds one), `cpu` or `cuda`.

    Raises:
        EnvironmentProblem: torch is missing or does not run.
    """
    begun = time.monotonic()
    facts = identity(device)
    path = home() / f"machine-{_digest(facts)[:24]}.json"
    kept = _read(path, facts)
    if not fresh and kept is not None and not kept.due():
        return kept.profile(path, 0.0)
    told = say or (lambda text: print(text, file=sys.stderr))
    with file_lock(path.with_suffix(".lock"), on_wait=told):
        # Another run may have measured while this one waited.
        kept = _read(path, facts)
        if fresh or kept is None or kept.due():
            told(NOTICE)
            kept = _measured(facts, device, None if fresh else kept)
            write_beside(path, json.dumps(kept.to_dict(facts), ensure_ascii=False, indent=1))
            if kept.busy:
                told("other programs are using this computer: it will be measured once more another time")
    return kept.profile(path, time.monotonic() - begun)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A profile as it lies on disk."""

    machine: Machine
    busy: bool
    tries: int
    measured: float
    """Seconds since 1970."""

    def due(self) -> bool:
        """Says whether another try is worth its seconds."""
        return self.busy and self.tries < TRIES and not 0 <= time.time() - self.measured < AGAIN_SECONDS

    def profile(self, path: Path, seconds: float) -> Profile:
        return Profile(
            machine=self.machine,
            digest=machine_digest(self.machine),
            seconds=seconds,
            path=path,
            busy=self.busy,
        )

    def to_dict(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "identity": facts,
            "machine": self.machine.to_dict(),
            "busy": self.busy,
            "tries": self.tries,
            "measured": self.measured,
        }


def _measured(facts: dict[str, Any], device: str, before: _Kept | None) -> _Kept:
    found = _probe(facts["cores"], device, any(flag in facts["isa"].split() for flag in BF16_FLAGS))
    share = found.get("cpu_share")
    machine = _machine(facts, found)
    if before is not None:
        rates = ("gemm_flops", "gemm_small_flops", "bf16_flops", "stream_bytes", "text_bytes")
        best = {
            name: max(getattr(machine, name) or 0.0, getattr(before.machine, name) or 0.0) or None
            for name in rates
        }
        machine = replace(machine, **best)
    return _Kept(
        machine=machine,
        busy=share is not None and share < BUSY_BELOW,
        tries=before.tries + 1 if before else 1,
        measured=time.time(),
    )


def machine_digest(machine: Machine) -> str:
    """Names a profile by its content."""
    return _digest(machine.to_dict())[:16]


def identity(device: str = "auto") -> dict[str, Any]:
    """Gives what a measurement holds for; when any of it changes, another is made."""
    return {
        "probe": PROBE,
        "model": hardware.cpu_model(),
        "isa": hardware.isa(),
        "cores": hardware.allowed_cores(),
        "memory_bytes": hardware.memory_limit() or _rounded(hardware.physical_memory()),
        "virtual": hardware.virtualised(),
        "device": device,
        "gpus": [] if device == "cpu" else [*hardware.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")],
        "torch": installed_version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
    }


def installed_version(package: str) -> str:
    """Gives a package's version without importing it."""
    if package == "kogata":
        # From the sources in use, which need not be the ones installed.
        return getattr(sys.modules.get("kogata"), "__version__", "") or _metadata_version(package)
    return _metadata_version(package)


def _metadata_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _rounded(memory_bytes: int) -> int:
    """Rounds to 64 MiB: the kernel's own share differs a little from start to start."""
    return memory_bytes >> 26 << 26


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _read(path: Path, facts: dict[str, Any]) -> _Kept | None:
    # What cannot be read, or is of another kind than expected, is measured anew.
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["identity"] == facts:
            return _Kept(
                machine=_now(Machine.from_dict(content["machine"])),
                busy=bool(content["busy"]),
                tries=int(content["tries"]),
                measured=float(content["measured"]),
            )
    return None


def _now(machine: Machine) -> Machine:
    """Brings up to date what is cheap to look up: the compiler and the versions."""
    versions = {name: installed_version(name) for name in ("kogata", "torch")}
    versions["python"] = platform.python_version()
    return replace(machine, compiler=hardware.compiler() is not None, versions=versions)


def _machine(facts: dict[str, Any], found: dict[str, Any]) -> Machine:
    watts, source = modelled_watts(facts["cores"], facts["memory_bytes"], facts["virtual"])
    if found.get("package_watts"):
        watts, source = (found["package_watts"], found["package_watts"]), "measured:rapl"
    model = facts["model"]
    if found.get("gpu"):
        model = f"{found['gpu']}, {model}"
    return _now(
        Machine(
            device=found["device"],
            cores=facts["cores"],
            isa=facts["isa"],
            model=model,
            memory_bytes=facts["memory_bytes"],
            gemm_flops=found["gemm_flops"],
            gemm_small_flops=found["gemm_small_flops"],
            bf16_flops=found.get("bf16_flops"),
            stream_bytes=found["stream_bytes"],
            text_bytes=found.get("text_bytes"),
            watts=watts,
            watts_source=source,
        )
    )


def _probe(cores: int, device: str, bf16: bool) -> dict[str, Any]:
    """Measures in a child process, so that this one stays free of torch."""
    # A quarter of what is free, for source and target, and never more than is useful.
    stream = max(1 << 22, min(1 << 28, hardware.available_memory() // 8))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": str(cores),
        "MKL_NUM_THREADS": str(cores),
    }
    # -P: a file called random.py in the user's folder is not to be imported.
    command = [sys.executable, "-P", "-m", "kogata.runtime.machine_probe", "--cores", str(cores)]
    command += ["--device", device, "--stream-bytes", str(stream), "--seconds", str(PROBE_SECONDS)]
    command += ["--bf16"] if bf16 else []
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(
            "measuring this computer takes too long",
            found=f"no result after {LONGEST_SECONDS:.0f}s",
            remedy="end what else runs on it, and try again",
        ) from None
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise _failed(done.returncode, done.stderr) from None


def _failed(code: int, stderr: str) -> EnvironmentProblem:
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "no message")
    if "No module named 'torch'" in stderr:
        return EnvironmentProblem(
            "torch is not installed",
            found=f"{sys.executable} finds no torch",
            remedy="install Kogata with its dependencies (docs/install.md)",
        )
    if code == -9 and LINUX:
        last = "killed, most likely for lack of memory"
    return EnvironmentProblem(
        "this computer cannot be measured: torch does not run",
        found=last,
        remedy="`python -c 'import torch'` must work; reinstall torch (docs/install.md)",
    )
