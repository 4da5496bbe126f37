"""Real training through the runner: several processes, kill and resume to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kogata import api
from kogata.core.artifact import sha256_of

ROOT = Path(__file__).resolve().parents[2]


def stages(steps: int, **train: Any) -> list[dict[str, Any]]:
    shape = {"family": "qwen3", "layers": 2, "width": 64, "heads": 2}
    return [
        {
            "data.read": {
                "path": str(ROOT / "examples/data/shakespeare/input.txt.gz"),
                "heldout": {"tail": 0.1},
            }
        },
        {"tokenizer.train": {"vocab_size": 512}},
        {"tokenizer.encode": {}},
        {"train.pretrain": {"model": shape, "steps": steps, "batch": 1024, "context": 128, **train}},
    ]


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
