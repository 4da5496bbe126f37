"""Energy: read from counters where there are any, else a range from published figures, with its source.

RAPL counts the processor's packages as a whole (other programs included; memory, fans and power supply not),
NVML the GPUs. What is modelled: a virtual core draws 0.71–0.78 W idle and 3.5–4.26 W busy, and memory up to
0.392 W a gigabyte (Cloud Carbon Footprint, figures of three cloud providers). A core of one's own computer is
taken as 1.5–10 W busy (thermal design power of laptops and desktops over their threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kogata.core.amounts import Energy
from kogata.core.receipt import Machine

POWERCAP = Path("/sys/class/powercap")

CLOUD = "modelled:ccf"
OWN = "modelled:tdp"
BUSY_CLOUD_WATTS = (3.5, 4.26)
"""Of one virtual core at full load: the lowest and highest of three providers."""
BUSY_OWN_WATTS = (1.5, 10.0)
IDLE_SHARE = 0.2
"""Of a core's power at load that it draws idle (0.74 of 3.5 W, 0.71 of 4.26 W)."""
MEMORY_WATTS_PER_GB = 0.392


def modelled_watts(cores: int, memory_bytes: int, virtual: bool) -> tuple[tuple[float, float], str]:
    """Gives the range of power at load, and its source.

    The low end takes the memory as contained in the cores' figures, the high end as coming on top.
    """
    low, high = BUSY_CLOUD_WATTS if virtual else BUSY_OWN_WATTS
    watts = (round(cores * low, 2), round(cores * high + memory_bytes / 1e9 * MEMORY_WATTS_PER_GB, 2))
    return watts, CLOUD if virtual else OWN


def modelled_energy(machine: Machine, seconds: float, cpu_seconds: float | None) -> Energy | None:
    """Models the energy of a stretch of time by how busy the cores were.

    A core that idles draws a fifth of what it draws busy; memory draws the same all the time.
    """
    full = machine.joules(seconds)
    if full is None or cpu_seconds is None or seconds <= 0:
        return full
    busy = min(1.0, cpu_seconds / (machine.cores * seconds))
    share = IDLE_SHARE + (1 - IDLE_SHARE) * busy
    memory = machine.memory_bytes / 1e9 * MEMORY_WATTS_PER_GB * seconds
    memory = min(memory, full.high) if machine.watts_source.startswith("modelled") else 0.0
    return Energy(low=full.low * share, high=(full.high - memory) * share + memory, source=full.source)


class Rapl:
    """The energy counters of the processor's packages; they wrap, so `poll` at least every few seconds."""

    def __init__(self, folder: Path | None = None) -> None:
        self._zones: list[tuple[Path, int]] = []
        self._last: list[int] = []
        self._joules = 0.0
        # Only packages: what lies inside them (cores, memory controller) or around them (psys) counts twice.
        for place in sorted((folder or POWERCAP).glob("*-rapl:*")):
            try:
                if (place / "name").read_text().strip().startswith("package"):
                    counter = place / "energy_uj"
                    value = int(counter.read_text())
                    self._zones.append((counter, int((place / "max_energy_range_uj").read_text())))
                    self._last.append(value)
            except (OSError, ValueError):
                continue

    def __bool__(self) -> bool:
        return bool(self._zones)

    def poll(self) -> float | None:
        """Gives the joules since this object was made; None where there is no counter."""
        if not self._zones:
            return None
        for index, (counter, around) in enumerate(self._zones):
            try:
                value = int(counter.read_text())
            except (OSError, ValueError):
                continue
            delta = value - self._last[index]
            self._joules += (delta if delta >= 0 else delta + around) / 1e6
            self._last[index] = value
        return self._joules


class Nvml:
    """The energy counters of the NVIDIA GPUs this process may use."""

    def __init__(self) -> None:
        self._read: list[Callable[[], float]] = []
        self._start: list[float] = []
        if not Path("/proc/driver/nvidia").exists() and not Path("C:/Windows/System32/nvml.dll").exists():
            return
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            for index in _visible(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                self._start.append(_joules(pynvml, handle))
                self._read.append(lambda handle=handle: _joules(pynvml, handle))
        except pynvml.NVMLError:
            self._read, self._start = self._read[: len(self._start)], self._start[: len(self._read)]

    def __bool__(self) -> bool:
        return bool(self._read)

    def poll(self) -> float | None:
        """Gives the joules since this object was made; None where there is no counter."""
        if not self._read:
            return None
        try:
            return math.fsum(read() - start for read, start in zip(self._read, self._start, strict=True))
        except Exception:  # the driver went away; its errors have no common base outside its library
            return None


def _joules(pynvml: Any, handle: Any) -> float:
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def _visible(count: int) -> list[int]:
    import os

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(range(count))
    numbers = [int(item) for item in chosen.split(",") if item.strip().isdigit()]
    return [number for number in numbers if number < count]


class EnergyMeter:
    """Reads every counter there is; what has none is modelled."""

    def __init__(self, machine: Machine | None, rapl: Rapl | None = None, nvml: Nvml | None = None) -> None:
        self.machine = machine
        self.rapl = rapl if rapl is not None else Rapl()
        self.nvml = nvml if nvml is not None else Nvml()

    def poll(self) -> tuple[float | None, float | None]:
        """Reads the counters: joules of packages and of GPUs since the start."""
        return self.rapl.poll(), self.nvml.poll()

    def between(
        self,
        before: tuple[float | None, float | None],
        after: tuple[float | None, float | None],
        seconds: float,
        cpu_seconds: float | None,
    ) -> Energy | None:
        """Gives the energy between two readings; None when neither measured nor modelled."""
        total: Energy | None = None
        if before[0] is not None and after[0] is not None:
            spent = after[0] - before[0]
            total = Energy(low=spent, high=spent, source="measured:rapl")
        elif self.machine is not None:
            total = modelled_energy(self.machine, seconds, cpu_seconds)
        if before[1] is not None and after[1] is not None:
            spent = after[1] - before[1]
            gpu = Energy(low=spent, high=spent, source="measured:nvml")
            total = gpu if total is None else total + gpu
        return total
