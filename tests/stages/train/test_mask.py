"""train.mask: encoders from scratch and further, what is hidden, resume, and that transformers loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_encoders import encoder_artifact
from training_bench import MACHINE, Killed, TrainingBench, make_tokens

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.stage import Share
from kogata.engine.masking import MaskSampler, Specials
from kogata.engine.tokens import TokenStore
from kogata.stages.train.mask import Mask

SHAPE = {"layers": 2, "width": 32, "heads": 2, "ffn_width": 64}
TEXT = [
    "The cat sat on the mat by the sea.",
    "猫が海辺のござに座った。",
    "A dog ran after the ball.",
    "犬が走る。",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tokens(tmp_path_factory.mktemp("tokens"), vocab_size=320)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Tokens of real text with a byte-level tokenizer, Japanese among it."""
    from small_models import write_small_tokenizer

    from kogata.engine.text import CorpusWriter
    from kogata.stages.tokenizer.encode import Encode

    folder = tmp_path_factory.mktemp("written")
    write_small_tokenizer(folder / "tokenizer")
    (folder / "corpus").mkdir()
    corpus = CorpusWriter(folder / "corpus")
    for number in range(80):
        split = "heldout" if number % 10 == 0 else "train"
        corpus.write(Document(id=str(number), text=" ".join([TEXT[number % 4]] * 4), split=split))
    made = Artifact(kind=Kind.CORPUS, digest="c", path=folder / "corpus", facts=corpus.close())
    facts = {"vocab_size": 320, "end_id": 0}
    tokenizer = Artifact(kind=Kind.TOKENIZER, digest="t", path=folder / "tokenizer", facts=facts)
    bench = TrainingBench(folder)
    facts = Encode().run({"corpus": made, "tokenizer": tokenizer}, bench)
    return Artifact(kind=Kind.TOKENS, digest="k", path=bench.out, facts=facts)


def run(tokens: Artifact, bench: TrainingBench, given: Artifact | None = None, **settings: Any):
    stage = Mask(**{"context": 16, "batch": 128, **settings})
    facts = {"tokens": tokens.facts, "model": given.facts if given else None}
    made = stage.resolve(facts, MACHINE, bench.share).stage
    return made.run({"tokens": tokens, "model": given}, bench)


def test_what_is_hidden_is_decided_by_position_and_new_each_epoch(tokens: Artifact) -> None:
    store = TokenStore.open(tokens.path)
    specials = Specials(mask=320, start=0, vocab_size=322, added=True)
    make = lambda: MaskSampler(  # noqa: E731
        store.ids, store.offsets, context=21, batch=8, seed=3, specials=specials, share=0.3
    )
    sampler = make()
    batch = sampler.take()
    (part,) = list(batch.parts)
    assert batch.count == 8 * 6 and batch.tokens == 8 * 21
    assert part.weights is not None
    hidden = part.weights.numpy() > 0
    assert (hidden.sum(1) == 6).all() and not hidden[:, 0].any()
    assert (part.inputs.numpy()[hidden] == 320).all() and (part.inputs.numpy()[:, 0] == 0).all()
    assert (part.inputs.numpy()[~hidden] == part.targets.numpy()[~hidden]).all()
    other = make()
    other.load({"taken": 0})
    (again,) = list(other.take().parts)
    assert torch.equal(part.inputs, again.inputs)
    places = [make().window_batch(n, n + 1).weights for n in range(20)]
    spread = np.concatenate([p.numpy() for p in places if p is not None]).sum(0)
    assert (spread[1:] > 0).sum() > 15, "every position is hidden at some time"


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_from_scratch_it_learns_and_transformers_loads_it(
    written: Artifact, tmp_path: Path, family: str
) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    bench = TrainingBench(tmp_path)
    facts = run(written, bench, steps=30, model={"family": family, **SHAPE}, lr=0.01)
    losses = [row["loss"] for row in bench.rows]
    assert np.mean(losses[-5:]) < 0.85 * losses[0]
    assert facts["role"] == "encoder" and facts["training"]["steps"] == 30
    assert facts["heldout"]["accuracy"] > 0.1 and facts["heldout"]["hidden_tokens"] > 0
    tokenizer = AutoTokenizer.from_pretrained(bench.out)
    module = AutoModelForMaskedLM.from_pretrained(bench.out)
    cut = tokenizer("猫が海辺", return_tensors="pt")
    assert cut["input_ids"][0, 0] == 0 and cut["input_ids"][0, -1] == 0
    size = len(tokenizer)
    assert tokenizer.mask_token_id == size - 2 and tokenizer.pad_token_id == size - 1
    with torch.no_grad():
        assert module(input_ids=cut["input_ids"]).logits.shape[-1] == facts["vocab_size"] >= size


def test_train_classify_takes_it(written: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_encoders import examples_artifact, rows

    from kogata.engine.classify import ngrams, probe
    from kogata.stages.train.classify import Classify

    monkeypatch.setattr(probe, "STRENGTHS", (30.0,))
    monkeypatch.setattr(ngrams, "STRENGTHS", (16.0,))
    bench = TrainingBench(tmp_path / "mask")
    facts = run(written, bench, steps=3, context=32, model={"family": "modernbert", **SHAPE})
    model = Artifact(kind=Kind.MODEL, digest="m", path=bench.out, facts=facts)
    examples = examples_artifact(tmp_path / "rows", train=rows(4))
    made = Classify(method="probe").run(
        {"examples": examples, "model": model}, TrainingBench(tmp_path / "classify")
    )
    assert made["method"] == "probe" and made["loads_in_transformers"] is True


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_a_given_encoder_is_trained_on(tmp_path: Path, kind: str) -> None:
    model = encoder_artifact(tmp_path / "encoder", kind)
    assert model.facts["end_id"] == 3, "an encoder's separator ends a text"
    tokens = make_tokens(tmp_path / "tokens", vocab_size=40)
    tokens.facts.update(end_id=3, tokenizer_digest=model.facts["tokenizer_digest"])
    bench = TrainingBench(tmp_path)
    facts = run(tokens, bench, model, steps=15, lr=5e-3)
    losses = [row["loss"] for row in bench.rows]
    assert np.mean(losses[-5:]) < losses[0]
    assert facts["architecture"] == kind and (bench.out / "tokenizer.json").is_file()


def test_killed_and_resumed_is_the_same_to_the_last_bit(written: Artifact, tmp_path: Path) -> None:
    settings = {"steps": 12, "model": {"family": "modernbert", **SHAPE}, "checkpoint_every": 4}
    whole = TrainingBench(tmp_path / "whole")
    facts = run(written, whole, **settings)
    with pytest.raises(Killed):
        run(written, TrainingBench(tmp_path / "killed", kill_at=7), **settings)
    bench = TrainingBench(tmp_path / "killed")
    assert run(written, bench, **settings) == facts
    for path in whole.out.iterdir():
        assert (bench.out / path.name).read_bytes() == path.read_bytes(), path.name


def test_plans() -> None:
    facts = {
        "vocab_size": 8192,
        "end_id": 0,
        "splits": {"train": {"documents": 50, "tokens": 8_000_000, "bytes": 29_000_000}},
    }
    given: dict[str, Any] = {"tokens": facts, "model": None}
    small = Mask().resolve(given, MACHINE, Share(seconds=60.0)).stage
    large = Mask().resolve(given, MACHINE, Share(seconds=36_000.0)).stage
    assert isinstance(small, Mask) and isinstance(large, Mask)
    assert (small.model.width or 0) < (large.model.width or 0)
    assert Mask().clocked(Share(seconds=60.0)) and not Mask(steps=3).clocked(Share(seconds=60.0))
    forecast = small.forecast(given, MACHINE, Share(seconds=60.0))
    assert forecast.cost.seconds == 60.0 and forecast.facts["role"] == "encoder"


def test_mistakes(tokens: Artifact, tmp_path: Path) -> None:
    for wrong in (
        {"steps": 3, "epochs": 1},
        {"share": 1.0},
        {"model": {"layers": 2}},
        {"model": {"layers": 2, "width": 33}},
        {"time": 300},
    ):
        with pytest.raises(ValidationError):
            Mask(**wrong)
    decoder = Artifact(
        kind=Kind.MODEL, digest="m", path=tmp_path, facts={"architecture": "qwen3", "spec": {"layers": 1}}
    )
    with pytest.raises(RecipeError, match="only an encoder"):
        run(tokens, TrainingBench(tmp_path / "a"), decoder)
    other = encoder_artifact(tmp_path / "encoder")
    with pytest.raises(RecipeError, match="do not belong"):
        run(tokens, TrainingBench(tmp_path / "b"), other)
    few = make_tokens(tmp_path / "few", documents=1, length=12)
    with pytest.raises(DataError, match="no window"):
        run(few, TrainingBench(tmp_path / "c"), steps=3, model={"family": "bert", **SHAPE})


def test_metrics_of_a_counted_run_hold_no_times(written: Artifact, tmp_path: Path) -> None:
    bench = TrainingBench(tmp_path)
    run(written, bench, steps=2, model={"family": "bert", **SHAPE})
    row = json.loads((bench.out / "metrics.jsonl").read_text().splitlines()[0])
    assert "seconds" not in row and row["step"] == 1
