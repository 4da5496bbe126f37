"""The child process that measures a computer: imports torch, prints one line of JSON, ends.

Every rate is the best of a few short stretches: other programs only ever make a computer look slower. How
much of the cores' time this one got is told with the rates (`cpu_share`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

STRETCHES = 3
SMALL_SHAPE = (2048, 192, 768)
"""Tokens, width and feed-forward width of a small model's product."""


def measure(
    cores: int, device: str, seconds: float, stream_bytes: int, package_joules: Any = None
) -> dict[str, Any]:
    """Measures matrix products and copies.

    Args:
        cores: threads to use.
        device: `auto`, `cpu` or `cuda`.
        seconds: about how long to measure in all.
        stream_bytes: size of the array that is copied.
        package_joules: reads the energy used so far; None where nothing can be read.
    """
    import torch

    torch.set_num_threads(cores)
    torch.manual_seed(0)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def product(rows: int, inner: int, columns: int, stretch: float) -> float:
        a = torch.randn(rows, inner, device=device)
        b = torch.randn(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        return 2.0 * rows * inner * columns * _rate(lambda: torch.mm(a, b, out=out), finish, stretch)

    side = 2048 if device == "cpu" else 8192
    energy = package_joules() if package_joules else None
    begun, used = time.perf_counter(), time.process_time()
    gemm = product(side, side, side, 0.4 * seconds / STRETCHES)
    taken = time.perf_counter() - begun
    got = (time.process_time() - used) / (taken * cores) if device == "cpu" else None
    watts = (package_joules() - energy) / taken if package_joules and energy is not None else None
    small = product(*SMALL_SHAPE, 0.3 * seconds / STRETCHES)
    source = torch.ones(stream_bytes // 4, device=device)
    target = torch.empty_like(source)
    copies = _rate(lambda: target.copy_(source), finish, 0.3 * seconds / STRETCHES)
    return {
        "device": device,
        "gemm_flops": gemm,
        "gemm_small_flops": small,
        "stream_bytes": 2.0 * source.nbytes * copies,
        "package_watts": watts,
        "cpu_share": got,
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def _rate(work: Callable[[], Any], finish: Callable[[], None], stretch: float) -> float:
    """Gives how often a second the work can be done: the best stretch of several."""
    work()
    finish()
    best = 0.0
    for _ in range(STRETCHES):
        done, begun = 0, time.perf_counter()
        while True:
            work()
            finish()
            done += 1
            taken = time.perf_counter() - begun
            if taken >= stretch:
                break
        best = max(best, done / taken)
    return best


def main() -> None:
    """Measures and prints."""
    from kogata.runtime.energy import Rapl

    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--stream-bytes", type=int, default=1 << 28)
    given = parser.parse_args()
    rapl = Rapl()
    found = measure(given.cores, given.device, given.seconds, given.stream_bytes, rapl.poll if rapl else None)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
