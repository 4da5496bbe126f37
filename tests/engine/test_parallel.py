"""Two processes over gloo give what one gives at the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_bench import TrainingBench

from kogata.engine.parallel import Group
from kogata.engine.pretraining import prepare_torch

SCRIPT = """
import json
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
from kogata.core.artifact import Artifact, Kind
from kogata.engine import techniques
from kogata.engine.loop import train
from kogata.engine.parallel import Group
from kogata.stages.train.pretrain import Techniques
from test_loop import supply_of, training
from training_bench import TrainingBench, make_tokens
folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tokens = make_tokens(folder / f"tokens-{rank}-{world}")
group = Group.join(rank, world)
run = training(tokens, steps=6, micro=3, group=group, optimizer=sys.argv[4], tables_every=3)
chosen = Techniques.model_validate(json.loads(sys.argv[5])).chosen
run.techniques = techniques.make(chosen, run.model)
supply = supply_of(tokens)
for technique in run.techniques:
    run.sampler = technique.draw_from(run.sampler, supply)
bench = TrainingBench(folder / f"bench-{world}", rank=rank, world=world)
train(run, bench)
losses = torch.tensor([row["loss"] for row in bench.rows] or [0.0])
save_file({"losses": losses, **{n: p.detach().clone() for n, p in run.model.named_parameters()}},
          folder / f"end-{rank}-{world}.safetensors")
group.leave()
"""


def run(
    folder: Path, world: int, optimizer: str, techniques: Mapping[str, Any] | None = None
) -> list[dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parents[1] / "src")]
    workers = []
    for rank in range(world):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", SCRIPT, str(folder), str(rank), str(world), optimizer]
        command.append(json.dumps(techniques or {}))
        workers.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    for worker in workers:
        said, _ = worker.communicate(timeout=100)
        assert worker.returncode == 0, said.decode()
    return [load_file(folder / f"end-{rank}-{world}.safetensors") for rank in range(world)]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    (one,) = run(tmp_path, 1, "muon")
    first, second = run(tmp_path, 2, "muon")
    losses = first.pop("losses")
    second.pop("losses")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(losses, one.pop("losses"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first, one, rtol=2e-3, atol=2e-4)


def test_only_gradients_that_a_step_makes_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: sent.append(flat.numel()))
    a, b = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(5))
    group = Group(0, 2)
    for moved in ([a, b], [a], [a, b]):
        a.grad, b.grad = torch.full((3, 2), 2.0), None
        assert group.sum_gradients(moved, [0.1, 7.0]) == pytest.approx([0.1, 7.0], rel=1e-12)
        assert torch.equal(a.grad, torch.full((3, 2), 2.0))
        assert (b.grad is not None) == (len(moved) == 2)
    assert sent == [15, 10, 15]


def test_one_process_needs_no_group() -> None:
    group = Group()
    assert group.sum_gradients([], [1.5, 2.0]) == [1.5, 2.0]
    assert group.share_numbers([3.0]) == [3.0]
    group.share_tensors([torch.zeros(2)])
    group.wait()
    group.leave()


def test_each_process_has_a_card_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    threads = torch.get_num_threads()
    for rank, device in ((0, "cuda"), (1, "cuda"), (3, "cuda"), (1, "cpu")):
        bench = TrainingBench(tmp_path, rank=rank, world=4)
        bench.device = device
        prepare_torch(bench)
    torch.set_num_threads(threads)
    assert chosen == [0, 1, 1]
