"""The built wheel holds what it needs, and runs the quick start where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests_support import quick_settings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (pip install 'kogata[dev]')")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(ROOT)], check=True
    )
    (found,) = folder.glob("kogata-*.whl")
    return found


def test_the_wheel_holds_the_package_the_examples_and_the_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "kogata").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    examples = {
        f"kogata/_examples/{path.relative_to(ROOT / 'examples').as_posix()}"
        for path in (ROOT / "examples").rglob("*")
        if path.is_file() and path.relative_to(ROOT / "examples").parts[0] != "runs"
    }
    assert sources | examples <= names, sorted((sources | examples) - names)[:5]
    assert {name.rsplit("/", 1)[-1] for name in names} >= {
        "LICENSE",
        "NOTICE",
        "entry_points.txt",
        "METADATA",
    }
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    assert wheel.stat().st_size < 7_000_000


def test_the_wheel_runs_the_quick_start_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed, place = tmp_path / "installed", tmp_path / "somewhere else"
    place.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--target", str(installed), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed), "KOGATA_HOME": str(tmp_path / "home")}

    def kogata(*arguments: str) -> str:
        code = "import sys, kogata; from kogata.cli import main; print(kogata.__file__); sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, (
            f"kogata {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )
        assert str(installed) in done.stdout, "ran another kogata"
        return done.stdout

    kogata("new", "quickstart")
    recipe = place / "quickstart.yaml"
    assert recipe.read_text(encoding="utf-8").count("#") >= 5, "the recipe keeps its comments"
    kogata("run", "quickstart.yaml", *quick_settings(recipe))
    run = place / "runs" / "novels"
    for name in ("report.html", "recipe.yaml", "plan.json", "receipts.jsonl", "model/model.safetensors"):
        assert (run / name).is_file(), f"{name} is missing; there are {sorted(p.name for p in run.iterdir())}"
    assert "hills" in kogata("generate", "runs/novels", "Over the hills")
