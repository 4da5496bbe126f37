"""How fast it starts: `import kogata`, `kogata --help`, and a finished recipe run again. Medians.

python benchmarks/bench_start.py --full
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import common
from bench_budgets import stages


def seconds_of(words: list[str], times: int) -> list[float]:
    """Times a command so many times."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Times everything and writes start.json."""
    options = common.arguments(__doc__ or "")
    times = 21 if options.full else 7
    bare = seconds_of([sys.executable, "-c", ""], times)
    imported = seconds_of([sys.executable, "-c", "import kogata"], times)
    program = str(common.Path(sys.executable).with_name("kogata"))
    helped = seconds_of([program, "--help"], times)
    with common.empty_store() as folder:
        path = common.recipe(folder, "again", {"stages": stages({"steps": 20})})
        first = common.kogata("run", str(path), cwd=folder)["wall_seconds"]
        again = [
            common.kogata("run", str(path), cwd=folder)["wall_seconds"]
            for _ in range(3 if options.full else 1)
        ]
    result = {
        "bare_python_seconds": bare,
        "import_seconds": [value - statistics.median(bare) for value in imported],
        "help_seconds": helped,
        "first_run_seconds": first,
        "rerun_seconds": again,
    }
    common.write_result("start" if options.full else "start-quick", result)


if __name__ == "__main__":
    main()
