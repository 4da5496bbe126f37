"""Nothing heavy is imported to start, to plan, to list the techniques or to write the schema."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

HEAVY = (
    "torch transformers tokenizers safetensors pyarrow polars pandas scipy sklearn plotly matplotlib "
    "ray gguf xllamacpp peft optuna datasets huggingface_hub"
)

# A `sitecustomize` that lets a heavy module be looked for but not imported. It clears its own variable, so
# that a child that measures the machine with torch is free to do so: the rule is about this process.
BLOCKER = textwrap.dedent(
    """
    import importlib.machinery, os, sys

    blocked = set(os.environ.pop("KOGATA_TEST_BLOCK", "").split())

    class HeavyImport(BaseException):
        pass

    class Loader:
        def create_module(self, spec):
            raise HeavyImport(f"imports {spec.name}")

        def exec_module(self, module):
            raise HeavyImport(f"imports {module.__name__}")

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name in blocked:
                return importlib.machinery.ModuleSpec(name, Loader())
            return None

    if blocked:
        sys.meta_path.insert(0, Finder())
    """
)


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, str]:
    """The environment in which heavy imports fail."""
    folder = tmp_path_factory.mktemp("blocker")
    (folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(root / "src")]), "KOGATA_TEST_BLOCK": HEAVY}


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_blocker_blocks(blocked: dict[str, str]) -> None:
    assert "imports torch" in python("import torch", blocked).stderr


def test_import_kogata_loads_nothing_heavy(blocked: dict[str, str]) -> None:
    environment = {
        **blocked,
        "KOGATA_TEST_BLOCK": f"{HEAVY} numpy pydantic pydantic_core typer rich ruamel jinja2",
    }
    done = python("import kogata; print(kogata.__version__)", environment)
    assert done.returncode == 0, done.stderr


def test_the_front_door_is_small_and_lazy(blocked: dict[str, str]) -> None:
    code = """
import kogata
names = [name for name in dir(kogata) if not name.startswith("_")]
assert 5 <= len(names) < 20, names
assert set(kogata.__all__) <= set(dir(kogata)), "dir() lists what can be had"
"""
    done = python(code, blocked)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["stages"], ["stages", "train.pretrain"], ["schema"], ["plan", "examples/quickstart.yaml"]],
    ids=" ".join,
)
def test_commands_that_only_look_import_nothing_heavy(
    arguments: list[str], blocked: dict[str, str], root: Path, kogata
) -> None:
    kogata(*arguments, cwd=root, env=blocked)


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
