"""Nothing heavy is imported to start, to plan, to list the techniques or to write the schema."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_blocker_blocks(blocker: dict[str, str]) -> None:
    assert "imports torch" in python("import torch", blocker).stderr


def test_import_kogata_loads_nothing_heavy(blocker: dict[str, str]) -> None:
    more = "numpy pydantic pydantic_core typer rich ruamel jinja2"
    environment = {**blocker, "KOGATA_TEST_BLOCK": f"{blocker['KOGATA_TEST_BLOCK']} {more}"}
    done = python("import kogata; print(kogata.__version__)", environment)
    assert done.returncode == 0, done.stderr


def test_the_front_door_is_small_and_lazy(blocker: dict[str, str]) -> None:
    code = """
import kogata
names = [name for name in dir(kogata) if not name.startswith("_")]
assert 5 <= len(names) < 20, names
assert set(kogata.__all__) <= set(dir(kogata)), "dir() lists what can be had"
"""
    done = python(code, blocker)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["stages"], ["stages", "train.pretrain"], ["schema"], ["plan", "examples/quickstart.yaml"]],
    ids=" ".join,
)
def test_commands_that_only_look_import_nothing_heavy(
    arguments: list[str], blocker: dict[str, str], root: Path, kogata
) -> None:
    kogata(*arguments, cwd=root, env=blocker)


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import kogata", 0.15),
        ("import sys; sys.argv = ['kogata', '--help']; from kogata.cli import main; main()", 0.4),
    ],
    ids=["import kogata", "kogata --help"],
)
def test_starts_quickly(code: str, limit: float, root: Path) -> None:
    # The best of several, above an empty interpreter's best: other work on the machine only ever adds time.
    def best(what: str) -> float:
        taken: list[float] = []
        for _ in range(7):
            start = time.perf_counter()
            python(what, {"PYTHONPATH": str(root / "src")})
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert best(code) - best("pass") <= limit
