"""Heads that begin by looking back do so on real embeddings, whatever the tokens are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_bench import MACHINE, TrainingBench, make_tokens

from kogata.core.artifact import Artifact
from kogata.core.stage import Share
from kogata.engine.initialise import initialise_from_corpus
from kogata.engine.look_back import look_back
from kogata.engine.tokens import TokenStore
from kogata.nn.decoder import Decoder
from kogata.nn.place import Place
from kogata.nn.rope import rotate
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tokens(tmp_path_factory.mktemp("tokens"), vocab_size=199, documents=40)


def weights_of(made: Decoder, ids: torch.Tensor) -> torch.Tensor:
    """Gives the first layer's attention, [heads, T, T]."""
    spec, block = made.spec, made.layers()[0]
    mixer = block.mixer
    z = mixer.qkv(block.mixer_norm(made.embed(ids[None])))
    qk = z.view(1, len(ids), spec.heads + 2 * spec.kv_heads, spec.head_dim)[
        :, :, : spec.heads + spec.kv_heads
    ]
    q, k = qk.split([spec.heads, spec.kv_heads], 2)
    if mixer.q_norm is not None:
        q, k = mixer.q_norm(q), mixer.k_norm(k)
    cos, sin = Place(*made.rope(0, len(ids), None)).table(spec.head_dim, mixer.local)
    q, k = rotate(q, cos, sin)[0], rotate(k, cos, sin)[0]
    k = k.repeat_interleave(spec.heads // spec.kv_heads, 1)
    scores = torch.einsum("thd,shd->hts", q, k) / spec.head_dim**0.5
    hidden = torch.full(scores.shape[1:], -torch.inf).triu(1)
    return torch.softmax(scores + hidden, -1)


@pytest.mark.parametrize(
    ("family", "heads", "kv_heads"), [("qwen3", 2, 2), ("llama", 2, 2), ("qwen3", 4, 2), ("gemma3", 2, 2)]
)
@torch.no_grad()
def test_heads_look_back(tokens: Artifact, family: str, heads: int, kv_heads: int) -> None:
    sizes = {"layers": 2, "width": 64 * heads, "heads": heads, "kv_heads": kv_heads, "ffn_width": 64}
    spec = ModelSpec.of_family(family, vocab_size=199, context=64, tied=False, **sizes)
    made, ids = Decoder(spec, seed=0), TokenStore.open(tokens.path).ids
    initialise_from_corpus(made, [ids], seed=0)
    text = torch.from_numpy(np.asarray(ids[1000:1064], dtype=np.int64))
    before, rows = weights_of(made, text), torch.arange(8, 64)
    assert look_back(made, ids, 2) == 2
    after = weights_of(made, text)
    for back in (1, 2):
        head = (back - 1) * heads // kv_heads
        share = after[head, rows, rows - back].mean()
        assert share > 0.5 > 5 * before[head, rows, rows - back].mean(), (back, float(share))


def test_what_has_no_such_heads_is_left_alone(tokens: Artifact) -> None:
    ids = TokenStore.open(tokens.path).ids
    for family, more in (("lfm2", {}), ("qwen3_5", {})):
        spec = ModelSpec.of_family(
            family, vocab_size=199, context=64, tied=False, layers=4, width=64, heads=2, ffn_width=64, **more
        )
        made = Decoder(spec, seed=0)
        before = [weight.clone() for weight in made.parameters()]
        assert look_back(made, ids, 2) == 0
        assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_what_follows_at_a_distance_is_known_before_any_training(tmp_path: Path) -> None:
    chance, ids = np.random.default_rng(3), [1, 2]
    for _ in range(12_000):
        follows = 1 + (ids[-2] * 7 + 3) % 60
        ids.append(follows if chance.random() < 0.9 else int(chance.integers(1, 61)))
    flat = np.array(ids, dtype=np.uint16)
    spec = ModelSpec.of_family(
        "qwen3", vocab_size=61, context=64, tied=False, layers=1, width=128, heads=2, ffn_width=64
    )
    rows = torch.from_numpy(flat[:6500].astype(np.int64)).view(100, 65)
    losses = []
    for heads in (0, 1, 2):
        made = Decoder(spec, seed=0)
        initialise_from_corpus(made, [flat], seed=0)
        if heads:
            look_back(made, flat, heads)
        with torch.no_grad():
            logits = made(rows[:, :-1]).flatten(0, 1)
            losses.append(float(F.cross_entropy(logits, rows[:, 1:].flatten())))
    assert losses[0] > 3.8  # The token before alone says nothing here: log 60 is 4.1.
    assert losses[1] < losses[0] - 0.7
    assert losses[2] <= losses[1] + 0.02


def test_training_starts_no_worse(tokens: Artifact, tmp_path: Path) -> None:
    first: dict[int, Any] = {}
    for heads in (0, 2):
        bench = TrainingBench(tmp_path / str(heads))
        stage = Pretrain(
            model={"layers": 2, "width": 64, "heads": 2, "ffn_width": 64}, context=32, batch=256, steps=4,
            look_back=heads,
        ).resolve({"tokens": tokens.facts, "model": None}, MACHINE, Share()).stage  # fmt: skip
        stage.run({"tokens": tokens, "model": None}, bench)
        first[heads] = [row["loss"] for row in bench.rows]
    assert first[2][0] < first[0][0] + 0.02
