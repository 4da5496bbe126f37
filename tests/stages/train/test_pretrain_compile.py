"""`compile` of train.pretrain: torch.compile is taken where it pays, computes the same, and is forecast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_bench import TrainingBench, make_tokens

from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.runtime.hardware import compiler
from kogata.stages.train.pretrain import Pretrain

FAST = Machine(cores=2, gemm_flops=184e9, gemm_small_flops=150e9, compiler=True)
NOVELS = {
    "vocab_size": 8192,
    "end_id": 0,
    "splits": {"train": {"documents": 50, "tokens": 80_000_000, "bytes": 290_000_000}},
}


def resolved(machine: Machine, share: Share, **settings: Any) -> Any:
    return Pretrain(**settings).resolve({"tokens": NOVELS, "model": None}, machine, share)


BIASED = {"family": "qwen2"}
"""Has biases, which our kernels do not compute."""


def test_a_short_budget_does_not_pay_for_torch_compile() -> None:
    found = resolved(FAST, Share(seconds=120.0), model=BIASED)
    assert found.stage.compile == "auto"
    assert "small kernels" in found.reasons["compile"] and "would save about" in found.reasons["compile"]


def test_where_our_kernels_compute_the_blocks_it_never_pays() -> None:
    found = resolved(FAST, Share(seconds=4 * 3600.0))
    assert found.stage.compile == "auto" and "as fast as torch.compile" in found.reasons["compile"]


def test_a_long_budget_does() -> None:
    found = resolved(FAST, Share(seconds=4 * 3600.0), model=BIASED)
    assert found.stage.compile is True and "would save about" in found.reasons["compile"]


def test_no_compiler_is_said_and_priced() -> None:
    found = resolved(replace(FAST, compiler=False), Share(seconds=4 * 3600.0))
    assert found.stage.compile == "auto"
    assert "no C++ compiler" in found.reasons["compile"] and "less" in found.reasons["compile"]


@pytest.mark.parametrize(
    ("share", "settings"),
    [
        (Share(seconds=4 * 3600.0, processes=2), {"model": BIASED}),
        (Share(seconds=4 * 3600.0), {"curriculum": "length_buckets", "model": BIASED}),
        (Share(seconds=4 * 3600.0), {"model": {"family": "kogata", "pattern": ["gated_delta", "full"]}}),
    ],
    ids=["processes", "many lengths", "recurrent"],
)
def test_it_is_not_tried_where_it_was_not_measured(share: Share, settings: dict[str, Any]) -> None:
    assert resolved(FAST, share, **settings).stage.compile == "auto"


def test_its_price_is_forecast() -> None:
    made = resolved(FAST, Share(), steps=10, model={"layers": 4, "width": 256, **BIASED}).stage
    facts = {"tokens": NOVELS, "model": None}
    plain = made.forecast(facts, FAST, Share()).cost.seconds
    compiled = made.model_copy(update={"compile": True}).forecast(facts, FAST, Share()).cost.seconds
    assert plain is not None and compiled is not None and compiled > plain + 15


@pytest.mark.skipif(compiler() is None, reason="no compiler")
def test_compiled_blocks_give_the_same_losses(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tokens = make_tokens(tmp_path / "tokens", length=300)
    model = {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}
    losses = {}
    for way in (True, False):
        bench = TrainingBench(tmp_path / str(way), machine=replace(FAST, cores=1))
        settings: dict[str, Any] = {"model": model, "context": 32, "batch": 256, "steps": 4, "compile": way}
        stage = Pretrain(**settings)
        facts = {"tokens": tokens.facts, "model": None}
        made = stage.resolve(facts, bench.machine, bench.share).stage
        found = made.run({"tokens": tokens, "model": None}, bench)
        assert found["training"]["kernels"] == ("torch.compile" if way else "torch")
        losses[way] = [row["loss"] for row in bench.rows]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)
