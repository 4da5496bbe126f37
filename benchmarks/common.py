"""What the benchmarks share: an empty store, the machine, the commit, the result file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / "benchmarks" / ".environments"


def arguments(about: str, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """Reads `--quick` or `--full` (default quick) and a benchmark's own options."""
    parser = argparse.ArgumentParser(description=about)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="at most 10 minutes")
    length.add_argument("--full", action="store_true", help="at most 90 minutes; README's figures")
    for name, options in more:
        parser.add_argument(name, **options)
    return parser.parse_args()


def write_result(name: str, parts: dict[str, Any]) -> Path:
    """Writes benchmarks/results/NAME.json with commit, machine and date."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    row = {"benchmark": name, "commit": commit(), "date": now(), "machine": machine(), **parts}
    path.write_text(json.dumps(row, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
    return path


def now() -> str:
    """Gives the time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str:
    """Names the commit; `+` when the sources differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    dirty = _git("status", "--porcelain", "--untracked-files=no", "--", "src")
    return head + ("+" if dirty else "")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Describes the computer as Kogata measured it."""
    from kogata.runtime.machine import machine_profile

    profile = machine_profile().to_dict()
    return {
        "model": profile["model"],
        "cores": profile["cores"],
        "isa": profile["isa"],
        "memory_bytes": profile["memory_bytes"],
        "gemm_flops": profile["gemm_flops"],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": profile["versions"],
    }


@contextlib.contextmanager
def empty_store() -> Iterator[Path]:
    """Gives a working folder with an empty store; the machine's profile is kept, it is no artifact."""
    from kogata.runtime.system import home

    profiles = [path for path in home().glob("machine*") if path.is_file()]
    with tempfile.TemporaryDirectory(prefix="kogata-bench-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        for path in profiles:
            shutil.copy2(path, folder / "home" / path.name)
        before = os.environ.get("KOGATA_HOME")
        os.environ["KOGATA_HOME"] = str(folder / "home")
        try:
            yield folder
        finally:
            if before is None:
                os.environ.pop("KOGATA_HOME", None)
            else:
                os.environ["KOGATA_HOME"] = before


def kogata(*words: str, cwd: Path, code: int | None = 0, timeout: float = 3600) -> dict[str, Any]:
    """Runs the command line with `--json`; gives its result, with `wall_seconds` seen from outside."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "kogata.cli", *words, "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    seconds = time.perf_counter() - start
    if code is not None and done.returncode != code:
        raise SystemExit(
            f"kogata {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    found = json.loads(done.stdout) if done.stdout.strip() else {}
    return {**found, "wall_seconds": seconds, "exit_code": done.returncode}


def environment(name: str, packages: list[str]) -> Path:
    """Gives the python of a peer's own virtual environment, made at first use."""
    place = ENVIRONMENTS / name
    python = place / "bin" / "python"
    mark = place / ".ready"
    if mark.exists() and mark.read_text() == "\n".join(packages):
        return python
    print(f"setting up the peer's environment {name}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    mark.write_text("\n".join(packages))
    return python


def run_peer(python: Path, *words: str, cwd: Path) -> dict[str, Any]:
    """Runs a peer's script; its last line of output is its result as JSON."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([str(python), *words], cwd=cwd, capture_output=True, text=True, env=clean)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def recipe(folder: Path, name: str, parts: dict[str, Any]) -> Path:
    """Writes a recipe (JSON is YAML too)."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"name": name, **parts}, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def corpus_folder(given: str | None) -> Path | None:
    """Gives the folder with prose/ and heldout/ of the team's English novels; None when there is none."""
    for place in (given, os.environ.get("KOGATA_BENCH_CORPUS"), ROOT.parent / "shared" / "data" / "corpus"):
        if place and (Path(place) / "prose").is_dir():
            return Path(place)
    return None


def data_folder(given: str | None) -> Path | None:
    """Gives the folder with corpus/ and web/ of the texts; says so and gives None where there is none."""
    for place in (given, os.environ.get("KOGATA_BENCH_DATA"), ROOT.parent / "shared" / "data"):
        if place and (Path(place) / "corpus" / "prose").is_dir():
            return Path(place).resolve()
    print("no data, nothing measured: name the folder by --data or KOGATA_BENCH_DATA", file=sys.stderr)
    return None


def stage_seconds(receipts: Any, *stages: str) -> float:
    """Adds up what the stages of these names took; what was reused counts what it took at first."""
    total = 0.0
    for receipt in receipts:
        if receipt.parent is None and receipt.stage in stages:
            cost = receipt.first_cost if receipt.status == "reused" else receipt.cost
            total += (cost.seconds if cost else None) or 0.0
    return total
