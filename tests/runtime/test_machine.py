"""The machine's profile: measured once, in a child, kept for what it holds for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kogata.core.errors import EnvironmentProblem
from kogata.core.receipt import Machine
from kogata.runtime import hardware, machine, machine_probe
from kogata.runtime.machine import machine_digest, machine_profile, profile_machine

FOUND = {
    "device": "cpu",
    "gemm_flops": 2e11,
    "gemm_small_flops": 1e11,
    "stream_bytes": 1e10,
    "text_bytes": 2e6,
    "package_watts": None,
    "cpu_share": 0.99,
    "torch": "2.13.0",
    "gpu": None,
}


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, fresh_home: Path) -> Iterator[list[dict[str, Any]]]:
    """Replaces the measuring child; what stands in the list is found next, then a plain machine."""
    planned: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []

    def probe(cores: int, device: str, bf16: bool) -> dict[str, Any]:
        asked.append({"cores": cores, "device": device, "bf16": bf16})
        return FOUND | (planned.pop(0) if planned else {})

    probe.asked = asked  # type: ignore[attr-defined]
    monkeypatch.setattr(machine, "_probe", probe)
    yield planned


def count() -> int:
    return len(machine._probe.asked)  # type: ignore[attr-defined]


def test_measured_once_and_said(probes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    first = profile_machine(say=said.append)
    assert said == ["measuring this computer, once (about 5 s, not counted as run time)"]
    assert first.seconds > 0 and not first.busy and first.path.is_file()
    again = profile_machine(say=said.append)
    assert count() == 1 and len(said) == 1 and again.seconds == 0
    assert again.machine == first.machine == machine_profile() and again.digest == first.digest
    machine_profile(fresh=True)
    assert count() == 2
    assert capsys.readouterr().err == "measuring this computer, once (about 5 s, not counted as run time)\n"


def test_what_a_profile_says(probes: Any) -> None:
    found = machine_profile()
    rates = (found.gemm_flops, found.gemm_small_flops, found.stream_bytes, found.text_bytes)
    assert (found.device, *rates) == ("cpu", 2e11, 1e11, 1e10, 2e6)
    assert found.cores == hardware.allowed_cores() and found.memory_bytes > 1 << 28
    assert found.model and found.isa
    assert set(found.versions) == {"kogata", "torch", "python"} and all(found.versions.values())
    low, high = found.watts or (0, 0)
    assert 0 < low < high and found.watts_source in ("modelled:ccf", "modelled:tdp")
    assert Machine.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert len(machine_digest(found)) == 16


def test_two_virtual_cores_draw_what_the_providers_publish(
    probes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "allowed_cores", lambda: 2)
    monkeypatch.setattr(hardware, "memory_limit", lambda: 24 * 10**9)
    monkeypatch.setattr(hardware, "virtualised", lambda: True)
    found = machine_profile()
    assert found.watts == (7.0, 17.93) and found.watts_source == "modelled:ccf"
    monkeypatch.setattr(hardware, "virtualised", lambda: False)
    assert machine_profile().watts_source == "modelled:tdp"


def test_a_counter_is_believed_before_a_model(probes: list[Any]) -> None:
    probes.append({"package_watts": 31.5})
    found = machine_profile()
    assert found.watts == (31.5, 31.5) and found.watts_source == "measured:rapl"


@pytest.mark.parametrize(
    ("name", "value"),
    [("allowed_cores", 61), ("memory_limit", 1 << 30), ("cpu_model", "別の石"), ("isa", "avx512f"),
     ("gpus", ["Another GPU"])],
)  # fmt: skip
def test_other_hardware_is_another_machine(
    probes: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = profile_machine()
    monkeypatch.setattr(hardware, name, lambda: value)
    second = profile_machine()
    assert count() == 2 and first.path != second.path


def test_another_torch_is_another_machine(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_profile()
    monkeypatch.setattr(machine, "installed_version", lambda package: "9.9")
    assert machine_profile().versions["torch"] == "9.9"
    assert count() == 2


def test_a_busy_computer_is_measured_again_and_the_best_is_kept(
    probes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(machine.time, "time", lambda: now[0])
    said: list[str] = []
    probes += [
        {"gemm_flops": 5e10, "stream_bytes": 9e10, "text_bytes": 1e6, "cpu_share": 0.3},
        {"gemm_flops": 9e10, "stream_bytes": 5e10, "text_bytes": None, "cpu_share": 0.5},
        {"gemm_flops": 2e11, "cpu_share": 0.97},
    ]
    first = profile_machine(say=said.append)
    assert first.busy and "other programs" in said[-1]
    assert profile_machine().machine.gemm_flops == 5e10 and count() == 1, "not at once"
    now[0] += 700
    second = profile_machine()
    assert second.busy and (second.machine.gemm_flops, second.machine.stream_bytes) == (9e10, 9e10)
    assert second.machine.text_bytes == 1e6, "the best that was seen"
    now[0] += 700
    assert profile_machine().machine.gemm_flops == 2e11
    now[0] += 7000
    assert not profile_machine().busy and count() == 3


def test_a_computer_that_is_always_busy_is_left_alone(
    probes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(machine.time, "time", lambda: now[0])
    probes += [{"cpu_share": 0.3}] * 20
    for _ in range(10):
        profile_machine(say=lambda text: None)
        now[0] += 1000
    assert count() == machine.TRIES


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identity": 1}', "null", '{"machine": {"cores": []}}'])
def test_a_damaged_profile_is_made_anew(probes: Any, content: str) -> None:
    first = profile_machine()
    first.path.write_text(content)
    assert profile_machine().machine == first.machine and count() == 2


def test_a_profile_of_an_earlier_probe_is_made_anew(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROBE", 1)
    old = profile_machine()
    content = json.loads(old.path.read_text(encoding="utf-8"))
    del content["machine"]["text_bytes"]
    old.path.write_text(json.dumps(content), encoding="utf-8")
    assert profile_machine().machine.text_bytes is None and count() == 1, "readable all the same"
    monkeypatch.setattr(machine, "PROBE", 2)
    assert profile_machine().machine.text_bytes == 2e6 and count() == 2


# The child


def test_the_child_measures(fresh_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.05)
    # A user's own file of a common name must not come in the way.
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    monkeypatch.chdir(tmp_path)
    found = profile_machine(say=lambda text: None, device="cpu")
    assert found.machine.device == "cpu"
    assert 1e8 < (found.machine.gemm_flops or 0) < 1e14
    assert 1e8 < (found.machine.gemm_small_flops or 0) < 1e14
    assert 1e7 < (found.machine.stream_bytes or 0) < 1e13
    assert 1e4 < (found.machine.text_bytes or 0) < 1e9


def test_the_text_that_is_measured_is_always_the_same() -> None:
    parts = machine_probe._text()
    assert parts == machine_probe._text()
    size, japanese = sum(len(part.encode()) for part in parts), sum("あ" <= c <= "ん" for c in "".join(parts))
    assert 90_000 < size < 150_000 and japanese > 2000
    encode = machine_probe._encoder(parts)
    ids = [encode(part) for part in parts]
    assert 0.2 < sum(map(len, ids)) / size < 0.6, "a vocabulary was learned"


@pytest.mark.parametrize(
    ("isa", "asks"), [("avx2 fma", False), ("avx2 avx512f avx512_bf16", True), ("amx_bf16", True)]
)
def test_bf16_is_measured_only_where_the_processor_has_it(
    isa: str, asks: bool, probes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "isa", lambda: isa)
    probes.append({"bf16_flops": 4e11 if asks else None})
    assert machine_profile().bf16_flops == (4e11 if asks else None)
    assert machine._probe.asked[0]["bf16"] is asks  # type: ignore[attr-defined]


def test_the_rate_of_bf16_is_of_products_as_training_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    kinds: list[set[torch.dtype]] = []
    rate, mm = machine_probe._rate, torch.mm

    def noted(work: Any, finish: Any, stretch: float) -> float:
        kinds.append(set())
        return rate(work, finish, stretch)

    def counted(a: Any, b: Any, **more: Any) -> Any:
        kinds[-1] |= {a.dtype, b.dtype}
        return mm(a, b, **more)

    monkeypatch.setattr(machine_probe, "_rate", noted)
    monkeypatch.setattr(torch, "mm", counted)
    threads = torch.get_num_threads()
    found = machine_probe.measure(1, "cpu", 0.01, 1 << 16, None, bf16=True)
    torch.set_num_threads(threads)
    wide, narrow = {torch.float32}, {torch.bfloat16}
    assert found["bf16_flops"] and [one for one in kinds if one] == [wide, wide, narrow, narrow]


def failing(code: int, stderr: str, monkeypatch: pytest.MonkeyPatch) -> str:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(machine.subprocess, "run", run)
    with pytest.raises(EnvironmentProblem) as caught:
        machine_profile(say=lambda text: None)
    return str(caught.value)


def test_no_torch(fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "Traceback\nModuleNotFoundError: No module named 'torch'\n"
    assert failing(1, stderr, monkeypatch) == (
        "torch is not installed\n"
        f"  found: {sys.executable} finds no torch\n"
        "  remedy: install Kogata with its dependencies (docs/install.md)"
    )
    assert list(fresh_home.glob("*.json")) == []


def test_a_torch_that_does_not_run(fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = failing(1, "ImportError: libgomp.so.1: cannot open shared object file\n", monkeypatch)
    assert "libgomp.so.1" in told and "python -c 'import torch'" in told
    assert "no message" in failing(1, "", monkeypatch)
    if sys.platform.startswith("linux"):
        assert "lack of memory" in failing(-9, "", monkeypatch)


def test_a_measurement_that_does_not_end(fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(machine.subprocess, "run", run)
    with pytest.raises(EnvironmentProblem, match="no result after 120s"):
        machine_profile(say=lambda text: None)
