"""Weights divided over two processes (FSDP2 over gloo) train to what one process trains to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_bench import MACHINE

from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine.costs import peak_bytes
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain

SCRIPT = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
from kogata.engine.loop import train
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import build_optimiser
from kogata.engine.parallel import Group
from kogata.engine.sharded import ShardedGroup, shard, whole
from kogata.nn.decoder import Decoder
from kogata.nn.optim import local
from kogata.nn.spec import ModelSpec
from test_loop import training
from training_bench import Killed, TrainingBench, make_tokens
folder, rank, world, name = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
kill_at = int(sys.argv[5]) or None
tokens = make_tokens(folder / f"tokens-{rank}-{world}")
group = Group.join(rank, world)
spec = ModelSpec.of_family(
    "qwen3", vocab_size=61, layers=2, width=16, heads=2, ffn_width=32, tied=False, context=16
)
decoder = Decoder(spec, seed=0)
total = sum(p.numel() for p in decoder.layers()[0].parameters())
if world > 1:
    shard(decoder, group, "cpu")
    group = ShardedGroup(rank, world)
    mine = sum(local(p).numel() for p in decoder.layers()[0].parameters())
    assert mine <= total // 2 + 16, (mine, total)
run = training(tokens, steps=8, micro=3, group=group, model=decoder, objective=LanguageModelling(decoder),
               optimiser=build_optimiser(decoder, "adamw"), clip=0.5, checkpoint_steps=2)
bench = TrainingBench(folder / f"{name}-bench", rank=rank, world=world, kill_at=kill_at)
killed = False
try:
    train(run, bench)
except Killed:
    killed = True
if not killed:
    if world > 1:
        decoder = whole(decoder).cpu()
    losses = torch.tensor([row["loss"] for row in bench.rows] or [0.0])
    norms = torch.tensor([row["grad_norm"] for row in bench.rows] or [0.0])
    weights = {n: p.detach().clone() for n, p in decoder.named_parameters()}
    save_file({"losses": losses, "norms": norms, **weights}, folder / f"{name}-{rank}.safetensors")
group.leave()
"""


def run(folder: Path, world: int, name: str, kill_at: int = 0) -> list[dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parents[1] / "src")]
    more = {"PYTHONPATH": os.pathsep.join(paths), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = []
    for rank in range(world):
        environment = {
            **os.environ,
            **more,
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, "-c", SCRIPT, str(folder), str(rank), str(world), name, str(kill_at)]
        workers.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    for worker in workers:
        said, _ = worker.communicate(timeout=110)
        assert kill_at or worker.returncode == 0, said.decode()
    if kill_at:
        return []
    return [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(world)]


@pytest.mark.timeout(300)
def test_two_processes_with_half_the_weights_each_equal_one(tmp_path: Path) -> None:
    (one,) = run(tmp_path, 1, "one")
    first, second = run(tmp_path, 2, "two")
    for name in ("losses", "norms"):
        torch.testing.assert_close(first.pop(name), one.pop(name), rtol=1e-4, atol=1e-4)
        second.pop(name)
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first, one, rtol=2e-3, atol=2e-4)
    run(tmp_path, 2, "killed", kill_at=5)
    again, _ = run(tmp_path, 2, "killed")
    assert all(torch.equal(first[name], again[name]) for name in first)


def resolved(**settings: Any) -> Any:
    tokens = {"vocab_size": 4096, "end_id": 0}
    tokens["splits"] = {"train": {"documents": 50, "tokens": 8_000_000, "bytes": 29_000_000}}
    stage = Pretrain(**{"steps": 5, "shard": True, "batch": 2048, **settings})
    return stage.resolve({"tokens": tokens, "model": None}, MACHINE, Share(processes=2))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"techniques": ["average"]}, "techniques"),
        ({"batch": 768, "context": 256}, "3 windows"),
        ({"recompute": True}, "recompute"),
        (
            {"model": {"family": "kogata", "layers": 2, "width": 64, "sharing": {"loops": 2, "rank": 2}}},
            "common",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolved(**settings)
    assert caught.value.where == "train.pretrain.shard" and found in str(caught.value.found)


def test_plans_count_the_part() -> None:
    assert resolved().stage.shard is True
    spec = ModelSpec.of_family("qwen3", vocab_size=4096, layers=12, width=768, heads=12, ffn_width=2048)
    usual = peak_bytes(spec, micro=256, muon=False, processes=2, corpus_start=False)
    parts = peak_bytes(spec, micro=256, muon=False, processes=2, corpus_start=False, shard=True)
    assert usual - parts > 2 * 4 * spec.matrix_parameters()
