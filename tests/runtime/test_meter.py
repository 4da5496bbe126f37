"""The meter: seconds, memory and energy of a tree of processes, nothing counted twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kogata.core.amounts import Cost, Energy
from kogata.core.receipt import Machine
from kogata.runtime import energy, meter, processes
from kogata.runtime.energy import EnergyMeter, Nvml, Rapl, modelled_energy, modelled_watts
from kogata.runtime.meter import Meter

LINUX = sys.platform.startswith("linux")
MIB = 1 << 20
MACHINE = Machine(cores=2, memory_bytes=24 * 10**9, watts=(7.0, 17.93), watts_source="modelled:ccf")


@pytest.fixture
def running() -> Iterator[Meter]:
    with Meter(machine=MACHINE) as one:
        yield one


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def peak(cost: Cost | None) -> float:
    assert cost is not None and cost.peak_bytes is not None
    return cost.peak_bytes / MIB


# Time


def test_seconds_and_cpu_seconds(running: Meter) -> None:
    with running.stage() as idle:
        time.sleep(0.2)
    with running.stage() as busy:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    assert idle.cost is not None and busy.cost is not None
    assert 0.2 <= (idle.cost.seconds or 0) < 2 and (idle.cost.cpu_seconds or 0) < 0.15
    assert 0.2 <= (busy.cost.cpu_seconds or 0) <= (busy.cost.seconds or 0) * 2 + 0.1
    assert busy.cost.tokens is None and busy.cost.flops is None, "what was not measured is None"


def test_children_that_ended_count(running: Meter) -> None:
    code = "import time\nwhile time.process_time() < 0.4: pass"
    with running.stage() as measured:
        run(code)
        run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    assert measured.cost is not None and 0.75 <= (measured.cost.cpu_seconds or 0) < 3


@pytest.mark.skipif(not LINUX, reason="/proc")
def test_an_orphan_stays_in_the_tree(running: Meter) -> None:
    grandchild = "import time\nwhile time.process_time() < 0.5: pass"
    start = f"subprocess.Popen([sys.executable, '-c', {grandchild!r}])"
    child = f"import subprocess, sys, time\n{start}\ntime.sleep(1)"
    with running.stage() as measured:
        run(child)
        time.sleep(0.3)
        end = time.monotonic() + 20
        while len(running._tree.members) > 1 and time.monotonic() < end:
            time.sleep(0.05)
            running.look()
    assert measured.cost is not None and (measured.cost.cpu_seconds or 0) > 0.45


def test_a_failing_stage_has_its_cost(running: Meter) -> None:
    with pytest.raises(ValueError, match="x"), running.stage() as measured:
        raise ValueError("x")
    assert measured.cost is not None and measured.cost.seconds is not None
    assert running._marks == []


# Memory


def test_each_stage_has_its_own_peak(running: Meter) -> None:
    with running.stage() as first:
        held = bytearray(200 * MIB)
        time.sleep(0.1)
        del held
    with running.stage() as second:
        pass
    assert peak(first.cost) - peak(second.cost) > 180


@pytest.mark.skipif(not LINUX, reason="high-water marks")
def test_a_short_peak_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "LOOK_SECONDS", 30.0)
    with Meter() as one:
        with one.stage() as outer:
            with one.stage() as before:
                pass
            with one.stage() as spiked:
                bytearray(150 * MIB)
            with one.stage() as after:
                pass
    base = peak(before.cost)
    assert 140 < peak(spiked.cost) - base < 190
    if processes.reset_peak(os.getpid()):
        assert peak(after.cost) - base < 40
    assert peak(outer.cost) >= peak(spiked.cost), "the whole held at least what its parts held"


@pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc/self/smaps_rollup").exists(), reason="fork, smaps"
)
def test_pages_of_forked_children_count_once() -> None:
    # In a process of its own: pytest's has threads.
    code = """
import os, time
from kogata.runtime.meter import Meter
with Meter() as meter:
    with meter.stage() as alone:
        held = bytearray(os.urandom(1 << 20)) * 200
        time.sleep(0.1)
    with meter.stage() as together:
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                own = bytearray(30 << 20)
                time.sleep(1.5)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
print(alone.cost.peak_bytes >> 20, together.cost.peak_bytes >> 20)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(meter.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    alone, together = map(int, done.stdout.split())
    assert 200 <= alone < 280
    assert 70 < together - alone < 130, "three times 30 MiB of their own, the 200 MiB once"


@pytest.mark.skipif(not LINUX, reason="Linux starts programs by vfork")
def test_a_child_that_has_not_yet_its_own_program_counts_once() -> None:
    # Until then it lives in its parent's memory; some of a thousand starts fall under a look.
    code = """
import subprocess, time
from kogata.runtime.meter import Meter

held = bytearray(b"x" * (200 << 20))
with Meter() as meter:
    with meter.stage() as measured:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            subprocess.run(["/bin/true"])
            meter.look()
print(measured.cost.peak_bytes >> 20)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(meter.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert 200 <= int(done.stdout) < 280


def test_children_add_to_the_tree(running: Meter) -> None:
    code = "import time; held = bytearray(100 << 20); time.sleep(3.0)"
    with running.stage() as measured:
        before = running.tree_bytes() / MIB
        run(code)
    assert peak(measured.cost) - before > 95


def test_a_limit_calls_once(running: Meter) -> None:
    calls: list[int] = []
    running.limit(running.tree_bytes() + 100 * MIB, calls.append)
    held = bytearray(50 * MIB)
    time.sleep(0.1)
    assert calls == []
    more = bytearray(100 * MIB)
    end = time.monotonic() + 5
    while not calls and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    assert len(calls) == 1 and len(held) + len(more) <= calls[0]
    running.limit(None)


def test_looking_is_cheap() -> None:
    with Meter():
        time.sleep(0.3)
        before = time.process_time()
        begun = time.monotonic()
        time.sleep(1.5)
        share = (time.process_time() - before) / (time.monotonic() - begun)
    assert share < 0.02, f"{share:.2%} of a core"


def test_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LINUX", False)
    monkeypatch.setattr(meter, "parts_of", lambda pid: None)
    monkeypatch.setattr(meter, "peak_of", lambda pid: None)
    monkeypatch.setattr(meter, "reset_peak", lambda pid: False)
    monkeypatch.setattr(meter, "resident_files", lambda pid: 0)
    with Meter(machine=MACHINE) as one, one.stage() as measured:
        run("import time\nheld = bytearray(60 << 20)\nwhile time.process_time() < 0.3: pass")
    assert measured.cost is not None and (measured.cost.cpu_seconds or 0) > 0.25
    assert peak(measured.cost) > 60


def test_a_root_that_is_gone_costs_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Meter(ended.pid) as one, one.stage() as measured:
        pass
    assert measured.cost is not None and measured.cost.peak_bytes is None and one.tree_bytes() == 0


# Energy


def test_modelled_energy_is_a_range_with_its_source(running: Meter) -> None:
    with running.stage() as measured:
        time.sleep(0.1)
    assert measured.cost is not None and measured.cost.joules is not None
    found = measured.cost.joules
    if not Rapl():
        assert found.source.startswith("modelled:ccf") and 0 < found.low < found.high


def test_the_model() -> None:
    assert modelled_watts(2, 24 * 10**9, True) == ((7.0, 17.93), "modelled:ccf")
    assert modelled_watts(8, 0, False) == ((12.0, 80.0), "modelled:tdp")
    busy = modelled_energy(MACHINE, 100, 200)
    assert busy == Energy(low=700, high=1793, source="modelled:ccf"), (
        "at load it is what the plan reckons with"
    )
    idle = modelled_energy(MACHINE, 100, 0)
    assert idle is not None and idle.low == pytest.approx(140)
    assert idle.high == pytest.approx(0.2 * (1793 - 940.8) + 940.8), "memory draws the same when idle"
    assert modelled_energy(MACHINE, 100, None) == busy and modelled_energy(MACHINE, 100, 900) == busy
    assert modelled_energy(Machine(), 100, 5) is None
    own = Machine(cores=2, memory_bytes=10**12, watts=(30.0, 30.0), watts_source="measured:rapl")
    assert modelled_energy(own, 10, 20) == Energy(low=300, high=300, source="measured:rapl")


def zone(folder: Path, number: str, name: str, joules: float, around: float = 1000.0) -> Path:
    place = folder / f"intel-rapl:{number}"
    place.mkdir(exist_ok=True)
    (place / "name").write_text(name + "\n")
    (place / "max_energy_range_uj").write_text(str(int(around * 1e6)))
    (place / "energy_uj").write_text(str(int(joules * 1e6)))
    return place / "energy_uj"


def test_counters_of_packages_only_and_around(tmp_path: Path) -> None:
    assert not Rapl(tmp_path) and Rapl(tmp_path).poll() is None
    first, second = zone(tmp_path, "0", "package-0", 10), zone(tmp_path, "1", "package-1", 990)
    inner, whole = zone(tmp_path, "0:0", "core", 5), zone(tmp_path, "2", "psys", 5)
    counter = Rapl(tmp_path)
    assert counter and counter.poll() == 0
    for path in (inner, whole):
        path.write_text("900000000")
    first.write_text("15000000")
    second.write_text("2000000")
    assert counter.poll() == pytest.approx(5 + 12), "the second went around"
    first.unlink()
    assert counter.poll() == pytest.approx(17)


def test_a_counter_that_may_not_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0")
    assert not Rapl(tmp_path)


def test_measured_comes_before_modelled(tmp_path: Path) -> None:
    path = zone(tmp_path, "0", "package-0", 0)

    class Gpu(Nvml):
        def __init__(self) -> None:
            self._read, self._start, self.joules = [lambda: self.joules], [0.0], 0.0

    gpu = Gpu()
    both = EnergyMeter(MACHINE, Rapl(tmp_path), gpu)
    before = both.poll()
    path.write_text("40000000")
    gpu.joules = 100.0
    assert both.between(before, both.poll(), 1, 1) == Energy(
        low=140, high=140, source="measured:rapl+measured:nvml"
    )
    only = EnergyMeter(MACHINE, Rapl(tmp_path / "none"), gpu)
    before = only.poll()
    gpu.joules = 150.0
    assert only.between(before, only.poll(), 1, 2) == Energy(
        low=57, high=67.93, source="modelled:ccf+measured:nvml"
    )
    assert (
        EnergyMeter(None, Rapl(tmp_path / "none"), Nvml()).between((None, None), (None, None), 1, 1) is None
    )


def test_only_the_gpus_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,7")
    assert energy._visible(4) == [1]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert energy._visible(2) == [0, 1]
