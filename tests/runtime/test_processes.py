"""Real training through the runner: several processes, kill and resume to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_bench import stages

from kogata import api
from kogata.core.artifact import sha256_of
from kogata.core.errors import KogataError
from kogata.runtime import pulse

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"shard": True}], ids=["copies", "parts"])
def test_two_processes_have_the_loss_of_one(
    more: dict[str, Any], tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = api.run(api.Recipe.load({"name": "one", "stages": stages(8)}))
    two = api.run(api.Recipe.load({"name": "two", "stages": stages(8, **more)}), processes=2)
    assert two.receipts[-1].status == "done"
    assert two.receipts[-1].facts["training"]["processes"] == 2
    losses = [[row["loss"] for row in run.metrics()] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_bits(
    tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = {"name": "killed", "stages": stages(60, checkpoint_every=5)}
    path = tmp_path / "killed.yaml"
    path.write_text(json.dumps(parts))
    words = [sys.executable, "-m", "kogata.cli", "run", str(path), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and len(metrics.read_text().splitlines()) > 12:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = api.run(api.Recipe.load(path))
    monkeypatch.setenv("KOGATA_HOME", str(tmp_path / "other-home"))
    whole = api.run(api.Recipe.load(path), out=Path("runs/whole"))
    weights = [sha256_of(Path(run.receipts[-1].path or "") / "model.safetensors") for run in (resumed, whole)]
    assert weights[0] == weights[1]
    assert resumed.receipts[-1].made == whole.receipts[-1].made


def seize(signum: int, metrics: Path) -> None:
    """Sends a signal to the second worker of this process's run once it has taken some steps."""
    for _ in range(2000):
        if metrics.exists() and len(metrics.read_text().splitlines()) > 12:
            break
        time.sleep(0.05)
    found = [child for child in psutil.Process().children() if "kogata.runtime.worker" in child.cmdline()]
    max(found, key=lambda child: (child.create_time(), child.pid)).send_signal(signum)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("signum", "said"),
    [(signal.SIGSTOP, "rank 1 of 2 hangs and is given up"), (signal.SIGKILL, "rank 1 of 2 was lost")],
    ids=["stopped", "killed"],
)
def test_the_others_end_when_a_rank_hangs_or_dies_and_a_restart_gives_the_same_bits(
    signum: int, said: str, tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pulse, "LOST_SECONDS", 6.0)
    parts = {"name": "hanging", "stages": stages(60, checkpoint_every=5)}
    at = threading.Thread(target=seize, args=(signum, tmp_path / "runs" / "hanging" / "metrics.jsonl"))
    at.start()
    with pytest.raises(KogataError, match=said) as caught:
        api.run(api.Recipe.load(parts), processes=2)
    at.join()
    assert (
        caught.value.exit_code == 1
        and "goes on from the last checkpoint" in str(caught.value.remedy)
        or (signum == signal.SIGKILL)
    )
    if signum == signal.SIGSTOP:
        assert "is stopped" in str(caught.value.found)
    resumed = api.run(api.Recipe.load(parts), processes=2)
    monkeypatch.setenv("KOGATA_HOME", str(tmp_path / "other-home"))
    whole = api.run(api.Recipe.load(parts), out=Path("runs/whole"), processes=2)
    assert resumed.receipts[-1].made == whole.receipts[-1].made
