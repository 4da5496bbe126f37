"""Trials: everything is put back, several processes agree, and what was found once is not sought again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from training_bench import TrainingBench

from kogata.engine.parallel import Group
from kogata.engine.trials import Trials, best_rate, smoothed, suffices

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from kogata.engine.parallel import Group
from kogata.engine.trials import Trial, Trials
from test_loop import training
from training_bench import TrainingBench, make_tokens
folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tokens = make_tokens(folder / f"tokens-{rank}-{world}")
group = Group.join(rank, world)
trials = Trials(bench=TrainingBench(folder / f"bench-{world}", rank=rank, world=world), group=group)
run = training(tokens, steps=3, micro=3, group=group)
named = list(run.model.named_parameters())
before = [tensor.detach().clone() for _, tensor in named]
found = trials.run("one", lambda: Trial(training=run, named=named, look=lambda: 7.0))
assert found["heldout"] == 7.0 and run.sampler.state()["taken"] == 0
assert all(torch.equal(was, now) for was, (_, now) in zip(before, named, strict=True))
assert trials.run("one", None) == found, "what was done is not done again"
trials.write(folder)
print(*found["losses"])
group.leave()
"""


def losses(folder: Path, world: int) -> list[list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), str(here.parents[1] / "src")])
    own = {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(rank), str(world)],
            env={**os.environ, **own, "RANK": str(rank), "WORLD_SIZE": str(world)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]
    said = [worker.communicate(timeout=100) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), [error.decode()[-800:] for _, error in said]
    return [[float(word) for word in out.decode().split()] for out, _ in said]


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    first, second = losses(tmp_path, 2)
    assert first == second and len(first) == 3 and first[2] < first[0]
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 6
    assert not (tmp_path / "bench-2" / "checkpoints" / "trials" / "one").exists()


def test_a_resumed_run_keeps_to_the_trials_it_chose(tmp_path: Path) -> None:
    """With less time left, fewer trials would pay: the rate that was found before still counts."""
    for steps in (12, 0):
        assert Trials(bench=TrainingBench(tmp_path), group=Group()).settled("lr", steps) == 12


def test_what_is_taken() -> None:
    assert smoothed([9, 9, 3, 1]) == 2 and smoothed([]) == float("inf")
    assert best_rate({0.1: [5, 2], 0.3: [5, 1], 0.9: []}) == 0.3
    assert best_rate({0.1: [], 0.3: []}) == 0.1
    assert suffices(1.02, 1.0) and not suffices(1.03, 1.0) and not suffices(None, 1.0)
