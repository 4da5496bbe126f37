"""A teacher of n-grams: its counts against plain ones, gradients against dense ones, edges, kills, plans."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from training_bench import MACHINE, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact
from kogata.core.errors import RecipeError
from kogata.core.stage import Share
from kogata.engine import followers, techniques
from kogata.engine.followers import Order, count, follow
from kogata.engine.techniques.ngram_teacher import Settings
from kogata.nn.kernels import Kernels
from kogata.nn.losses import SoftTargets, linear_cross_entropy
from kogata.nn.spec import ModelSpec
from kogata.stages.train.pretrain import Pretrain
from tests.engine.test_parallel import run as processes

TINY = {"model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32}, "context": 16, "batch": 64}
ALL = 10**9
JAPANESE = Path(__file__).parents[2] / "examples" / "data" / "aozora" / "works.jsonl.gz"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tokens(tmp_path_factory.mktemp("tokens"))


def run(text: Artifact, bench: TrainingBench, **settings: Any) -> dict[str, Any]:
    facts = {"tokens": text.facts, "model": None}
    stage = Pretrain(**{**TINY, **settings}).resolve(facts, MACHINE, bench.share).stage
    return stage.run({"tokens": text, "model": None}, bench)


def weights(bench: TrainingBench) -> bytes:
    return (bench.out / "model.safetensors").read_bytes()


def told(orders: list[Order], run: list[int], vocab_size: int, top: int) -> dict[int, float]:
    """Adds up what is said of the token after a run."""
    found: dict[int, float] = {}
    tokens, shares = follow(orders, np.array([run]), vocab_size, top)
    for token, share in zip(tokens[0, -1].tolist(), shares[0, -1].tolist(), strict=True):
        if share:
            found[token] = found.get(token, 0.0) + share
    return found


def plainly(ids: list[int], run: tuple[int, ...], discounts: dict[int, float]) -> dict[int, float]:
    """Interpolates by plain counting; what the shortest run leaves goes to nobody."""
    if not run:
        return {}
    after = Counter(
        ids[at + len(run)] for at in range(len(ids) - len(run)) if tuple(ids[at : at + len(run)]) == run
    )
    lower = plainly(ids, run[1:], discounts)
    total = sum(after.values())
    if total < 2:
        return lower
    discount = discounts[len(run)]
    rest = discount * len(after) / total
    found = {token: (times - discount) / total for token, times in after.items()}
    for token, share in lower.items():
        found[token] = found.get(token, 0.0) + rest * share
    return found


def text(length: int = 3000, vocab_size: int = 7) -> list[int]:
    chance = np.random.default_rng(1)
    ids = [0, 1]
    for _ in range(length):
        sure = (ids[-1] * 3 + ids[-2]) % vocab_size
        ids.append(sure if chance.random() < 0.6 else int(chance.integers(0, vocab_size)))
    return ids


def discounts_of(ids: list[int], order: int) -> dict[int, float]:
    found = {}
    for length in range(1, order):
        grams = Counter(tuple(ids[at : at + length + 1]) for at in range(len(ids) - length)).values()
        once, twice = sum(n == 1 for n in grams), sum(n == 2 for n in grams)
        found[length] = once / max(1, once + 2 * twice)
    return found


@pytest.mark.parametrize(("order", "length"), [(2, 3000), (3, 3000), (4, 300), (4, 40)])
def test_followers_are_what_plain_counting_finds(order: int, length: int) -> None:
    ids, vocab_size = text(length), 7
    orders = count(np.array(ids, dtype=np.uint16), vocab_size, order, vocab_size, ALL)
    assert [one.length for one in orders] == list(range(order - 1, 0, -1))
    discounts = discounts_of(ids, order)
    for at in range(30):
        run = ids[at : at + order - 1]
        expected = plainly(ids, tuple(run), discounts)
        found = told(orders, run, vocab_size, vocab_size)
        assert found == pytest.approx({t: s for t, s in expected.items() if s > 0}, rel=1e-4, abs=1e-6)
        assert sum(found.values()) <= 1 + 1e-5


def test_only_the_most_frequent_are_kept() -> None:
    ids, vocab_size = text(), 7
    whole, few = (count(np.array(ids), vocab_size, 3, top, ALL) for top in (vocab_size, 2))
    for run in ([0, 1], [3, 3], [6, 2]):
        after = Counter(c for a, b, c in zip(ids, ids[1:], ids[2:], strict=False) if [a, b] == run)
        tokens, shares = follow(few[:1], np.array([run]), vocab_size, 2)
        least = sorted(after.values())[-2]
        assert all(after[token] >= least for token in tokens[0, -1].tolist())
        everything = told(whole[:1], run, vocab_size, vocab_size)
        kept = dict(zip(tokens[0, -1].tolist(), shares[0, -1].tolist(), strict=True))
        assert kept == pytest.approx({token: everything[token] for token in kept})


def test_nothing_before_a_document_counts_in_it() -> None:
    ids = text()
    orders = count(np.array(ids), 7, 3, 7, ALL)
    row = np.array([ids[:10]])
    tokens, shares = follow(orders, row, 7, 7, documents=[[4, 10]])
    apart = follow(orders, row[:, 4:], 7, 7)
    np.testing.assert_array_equal(shares[:, 4:], apart[1])
    np.testing.assert_array_equal(tokens[:, 4:], apart[0])
    assert not np.array_equal(shares, follow(orders, row, 7, 7)[1])


def test_of_a_long_text_an_even_part_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "PIECE", 40)
    pieces = followers.sampled(np.arange(400), 100)
    assert [piece[0] for piece in pieces] == list(range(0, 400, 40)) and {len(p) for p in pieces} == {10}
    assert [len(piece) for piece in followers.sampled(np.arange(90), 100)] == [90]


def test_japanese_text_is_followed_as_english_is() -> None:
    with gzip.open(JAPANESE, "rt", encoding="utf-8") as lines:
        works = "".join(json.loads(line)["text"] for line in list(lines)[:40])[:200_000]
    letters = sorted(set(works))
    ids = np.array([letters.index(letter) for letter in works[:30_000]], dtype=np.uint16)
    orders = count(ids, len(letters), 3, 4, ALL)
    run = [letters.index(letter) for letter in "であ"]
    found = told(orders, run, len(letters), 4)
    assert letters[max(found, key=lambda token: found[token])] in "るっろり"


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("weighed", [False, True])
def test_gradients_are_those_of_the_moved_targets(kernels: bool, cap: float | None, weighed: bool) -> None:
    built = Kernels.build() if kernels else None
    if kernels and built is None:
        pytest.skip("no C compiler")
    torch.manual_seed(2)
    hidden, head = torch.randn(2, 6, 8), torch.randn(11, 8)
    targets, tokens = torch.randint(0, 11, (2, 6)), torch.randint(0, 11, (2, 6, 3))
    tokens[0, 0] = targets[0, 0]  # A follower may be the target, and stand there twice.
    shares = torch.rand(2, 6, 3) / 3
    share = torch.tensor([[1.0, 0, 2, 1, 0, 1], [0, 3.0, 1, 1, 1, 0]]) if weighed else None
    found = []
    for ours in (True, False):
        x, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        if ours:
            soft = SoftTargets(tokens=tokens, shares=shares)
            loss = linear_cross_entropy(x, w, targets, share, scale=0.1, kernels=built, cap=cap, soft=soft)
            plain = linear_cross_entropy(hidden, head, targets, share, scale=0.1, kernels=built, cap=cap)
            torch.testing.assert_close(loss.detach(), plain)  # What is told is the plain loss.
        else:
            logits = x @ w.T
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            wanted = F.one_hot(targets, 11) * (1 - shares.sum(-1, keepdim=True))
            wanted = wanted.scatter_add(2, tokens, shares)
            each = -(wanted * logits.log_softmax(-1)).sum(-1)
            loss = 0.1 * (each if share is None else each * share).sum()
        loss.backward()
        found.append((x.grad, w.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_share_of_nothing_is_the_plain_training(tokens: Artifact, tmp_path: Path) -> None:
    benches = [TrainingBench(tmp_path / name) for name in ("plain", "none", "some")]
    run(tokens, benches[0], steps=8)
    run(tokens, benches[1], steps=8, techniques={"ngram_teacher": {"share": 0}})
    run(tokens, benches[2], steps=8, techniques="ngram_teacher")
    assert weights(benches[0]) == weights(benches[1]) != weights(benches[2])
    assert benches[2].rows[0]["loss"] == benches[0].rows[0]["loss"]  # The loss told is the plain one.


def test_it_fades_and_is_gone(tokens: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    chosen = {"ngram_teacher": {"share": 0.8, "until": 0.5}}
    made = run(tokens, bench, steps=8, techniques=chosen)
    assert [row["teacher_share"] for row in bench.rows] == [0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0]
    assert made["spec"]["additions"] is None if "additions" in made["spec"] else True
    plain = TrainingBench(tmp_path / "plain")
    assert made["parameters"] == run(tokens, plain, steps=1)["parameters"]


@pytest.mark.parametrize("kill_at", [3, 9])
def test_killed_and_resumed_is_the_same(tokens: Artifact, tmp_path: Path, kill_at: int) -> None:
    settings = {"steps": 12, "checkpoint_every": 2, "techniques": {"ngram_teacher": {"until": 0.6}}}
    whole = TrainingBench(tmp_path / "whole")
    run(tokens, whole, **settings)
    with pytest.raises(Killed):
        run(tokens, TrainingBench(tmp_path / "killed", kill_at=kill_at), **settings)
    again = TrainingBench(tmp_path / "killed")
    run(tokens, again, **settings)
    assert weights(again) == weights(whole)
    assert (again.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    chosen = {"ngram_teacher": {"until": 1.0}}
    (one,) = processes(tmp_path, 1, "adamw", chosen)
    first, second = processes(tmp_path, 2, "adamw", chosen)
    losses = first.pop("losses")
    second.pop("losses")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(losses, one.pop("losses"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first, one, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("more", [{"documents": "apart"}, {"sampling": "loss"}, {"curriculum": "easy_first"}])
def test_it_goes_with_every_way_through_the_text(tokens: Artifact, tmp_path: Path, more: dict) -> None:
    bench = TrainingBench(tmp_path)
    run(tokens, bench, steps=4, techniques="ngram_teacher", **more)
    assert bench.rows[0]["teacher_share"] == 0.5


def test_it_helps_where_noise_is_the_trouble(tmp_path: Path) -> None:
    """A handful of steps on a text of which each pair decides the next token, mostly."""
    held = make_tokens(tmp_path / "tokens", documents=40, length=600)
    losses = []
    for chosen in ({}, {"ngram_teacher": {"share": 1.0, "until": 1.0, "order": 2}}):
        bench = TrainingBench(tmp_path / str(len(losses)))
        run(held, bench, steps=60, corpus_start=False, techniques=chosen, optimizer="adamw")
        losses.append(float(np.mean([row["loss"] for row in bench.rows[-20:]])))
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "wrong", [{"order": 1}, {"order": 6}, {"share": 1.5}, {"until": 0}, {"top": 0}, {"n": 3}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pretrain(techniques={"ngram_teacher": wrong})


def test_plans_count_it_and_refuse_what_has_no_number() -> None:
    sizes = {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32, "context": 16}
    spec = ModelSpec.of_family("qwen3", vocab_size=100_000, **sizes)
    techniques.check({"ngram_teacher": Settings()}, spec, "train.pretrain")
    with pytest.raises(RecipeError, match="this model cannot have") as caught:
        techniques.check({"ngram_teacher": Settings(order=4)}, spec, "train.pretrain")
    assert "at most 3" in str(caught.value.expected)
    chosen, none = {"ngram_teacher": Settings()}, {"ngram_teacher": Settings(share=0)}
    assert techniques.seconds_before(chosen, 1_000_000, MACHINE) > 0
    assert techniques.seconds_before(none, 1_000_000, MACHINE) == 0
    assert techniques.held_by(chosen, spec, 1_000_000) > 1_000_000 and techniques.held_by(none, spec, 9) == 0
    assert techniques.cost_of(chosen, spec) > 1 == techniques.cost_of(none, spec)


def test_the_forecast_has_its_time_and_memory(tokens: Artifact) -> None:
    facts = {
        "tokens": {**tokens.facts, "splits": {"train": {"documents": 9, "tokens": 8_000_000, "bytes": 1}}}
    }
    found = []
    for chosen in (None, "ngram_teacher"):
        stage = Pretrain(**TINY, steps=10, techniques=chosen).resolve(facts, MACHINE, Share()).stage
        found.append(stage.forecast(facts, MACHINE, Share()).cost)
    assert found[1].seconds > found[0].seconds + 0.5 and found[1].peak_bytes > found[0].peak_bytes
    assert found[1].flops == found[0].flops
