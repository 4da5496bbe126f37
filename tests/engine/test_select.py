"""Selectors: what is like the target, what is odd, what is predicted; amounts; the same whatever runs it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dedup_bench import corpus_of

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.registry import registry
from kogata.engine.ngrams import units_of
from kogata.engine.select import _pool
from kogata.engine.select._features import buckets_of, sums_of
from kogata.engine.select._ngram_model import NgramModel
from kogata.engine.select._pool import Pool
from kogata.engine.select._run import choose

SEA = "the ship sailed over grey water while gulls cried and old sailors sang of storms and far harbours"
CODE = "the function returns an integer value when the parameter is null else raises an error code"
UMI = "海は青く広がり、船は波を越えて進む。水夫たちは歌いながら帆を上げ、港の灯を思い出す。"
KEIYAKU = "契約の条項に基づき、甲は乙に対して代金を支払うものとし、遅延した場合は利息を加算する。"


def shuffled(text: str, count: int, chance: random.Random) -> str:
    """Makes a text of the same words, or characters, in another order."""
    spaced = " " in text
    units = text.split() if spaced else list(text)
    return (" " if spaced else "").join(chance.choice(units) for _ in range(count))


def pool_of(folder: Path, wanted: str, other: str, **more: Any) -> tuple[Pool, np.ndarray]:
    """Makes a pool of 30 wanted texts among 60 others, and says which are wanted."""
    chance = random.Random(1)
    kinds = np.array([True] * 30 + [False] * 60)
    chance.shuffle(kinds)  # type: ignore[arg-type]
    documents = [
        Document(str(at), shuffled(wanted if good else other, 120, chance)) for at, good in enumerate(kinds)
    ]
    target = [shuffled(wanted, 3000, chance) for _ in range(20)]
    return Pool(corpus_of(folder, documents).path, "corpus", target=target, **more), kinds


def scored(name: str, pool: Pool, **settings: Any) -> np.ndarray:
    variant = registry.variant("engine.select", name)
    found = variant.scores(variant.Settings(**settings), pool)
    assert found.shape == pool.sizes.shape
    return found


@pytest.mark.parametrize("name", ["dsir", "classifier", "perplexity", "representative"])
@pytest.mark.parametrize("wanted, other", [(SEA, CODE), (UMI, KEIYAKU)])
def test_what_is_like_the_target_scores_highest(name: str, wanted: str, other: str, tmp_path: Path) -> None:
    pool, kinds = pool_of(tmp_path, wanted, other)
    best = np.argsort(-scored(name, pool))[:30]
    assert kinds[best].mean() >= 0.95, "nearly all of the wanted come first"


@pytest.mark.parametrize("name", registry.variant_names("engine.select"))
def test_scores_are_repeatable(name: str, tmp_path: Path) -> None:
    variant = registry.variant("engine.select", name)
    if variant.NEEDS & {"model", "examples"}:
        pytest.skip("needs a model, or examples")
    pool, _ = pool_of(tmp_path, SEA, CODE, limit_bytes=8000, seed=3)
    assert (scored(name, pool) == scored(name, pool)).all()
    assert variant.Settings.__doc__ and variant.BYTES_PER_SECOND > 0


@pytest.mark.parametrize("name", ["random", "dsir"])
def test_chance_follows_the_seed(name: str, tmp_path: Path) -> None:
    first, _ = pool_of(tmp_path, SEA, CODE, seed=1)
    second = Pool(first.path, "corpus", target=first.target, seed=2)
    assert (scored(name, first) != scored(name, second)).all()


def test_dsir_draws_in_proportion(tmp_path: Path) -> None:
    pool, kinds = pool_of(tmp_path, SEA, CODE)
    nearly_by_chance = np.argsort(-scored("dsir", pool, grams=0.01))[:30]
    assert 0.1 < kinds[nearly_by_chance].mean() < 0.6


def test_prior_puts_what_is_odd_last(tmp_path: Path) -> None:
    chance = random.Random(4)
    documents = [Document(str(at), shuffled(SEA + " " + CODE, 150, chance)) for at in range(40)]
    documents += [Document("rare", " ".join(f"zq{at}" for at in range(150)))]
    documents += [Document("same", "the " * 150), Document("none", "…!")]
    pool = Pool(corpus_of(tmp_path, documents).path, "corpus")
    found = scored("prior", pool)
    assert set(np.argsort(found)[:3].tolist()) == {40, 41, 42} and found[42] == -np.inf


def test_longest_counts_bytes(tmp_path: Path) -> None:
    documents = [Document("a", "猫猫猫"), Document("b", "abcde"), Document("c", "abcdefghijk")]
    pool = Pool(corpus_of(tmp_path, documents).path, "corpus")
    assert scored("longest", pool).tolist() == [9, 5, 11]


def test_perplexity_has_its_bands(tmp_path: Path) -> None:
    pool, _ = pool_of(tmp_path, SEA, CODE)
    low, high = scored("perplexity", pool, band="low"), scored("perplexity", pool, band="high")
    assert (low == -high).all()
    middle = scored("perplexity", pool, band="middle")
    assert int(np.argmax(middle)) == int(np.argmin(np.abs(high - np.median(high)))) and middle.max() <= 0
    alone = Pool(pool.path, "corpus")
    assert (scored("perplexity", alone) == scored("perplexity", alone, band="middle")).all()


def test_coverage_takes_of_each_kind_and_spread_finds_the_odd(tmp_path: Path) -> None:
    chance = random.Random(6)
    kinds = [SEA, CODE, UMI]
    documents = [Document(str(at), shuffled(kinds[at % 3], 100, chance)) for at in range(60)]
    documents.append(Document("odd", " ".join(f"zq{at}" for at in range(80))))
    path = corpus_of(tmp_path, documents).path
    pool = Pool(path, "corpus", limit_bytes=5000)
    taken = np.argsort(-scored("representative", pool))[:6]
    assert {int(at) % 3 for at in taken if at < 60} == {0, 1, 2}
    far = scored("representative", pool, without_target="spread")
    assert 60 in np.argsort(-far)[:5]


def test_the_model_of_bytes_gives_chances_that_add_up() -> None:
    model = NgramModel()
    model.learn([[SEA, UMI]])
    total = 0.0
    base, start = "the ship sail", "the ship sai"
    before = model.bits([start])[0] * len(start)
    for code in range(1, 128):
        text = start + chr(code)
        total += 2.0 ** -(model.bits([text])[0] * len(text) - before)
    assert 0.5 < total <= 1.0 + 1e-6, "what is left is for bytes of longer characters"
    assert model.bits([base])[0] < model.bits(["zqxj vvkw qqz"])[0] < 16
    assert model.bits([SEA, ""]).tolist()[1] == np.inf
    alone = [float(model.bits([text])[0]) for text in (SEA, UMI)]
    assert model.bits([SEA, UMI])[0] == pytest.approx(alone[0])


def test_a_classifier_asks_for_enough_text(tmp_path: Path) -> None:
    documents = [Document(str(at), "word " * 5) for at in range(5)]
    pool = Pool(corpus_of(tmp_path, documents).path, "corpus", target=["one text"])
    with pytest.raises(DataError, match="too little text") as error:
        scored("classifier", pool)
    assert "1 pieces of the target, 5 of the pool" in (error.value.found or "")


def test_buckets_hold_words_and_runs() -> None:
    texts = ["a b c", "", "猫が"]
    buckets, starts = buckets_of(texts, 2, 2**20)
    assert np.diff(starts).tolist() == [5, 0, 3]
    words, _ = units_of(["b"])
    assert int(words[0] % 2**20) in buckets[:3].tolist()
    assert sums_of(np.ones(8), starts).tolist() == [5, 0, 3]


def test_choose_takes_the_best_that_fit() -> None:
    scores = np.array([3.0, 1.0, 2.0, -np.inf, np.nan, 2.0])
    sizes = np.array([10, 10, 10, 10, 10, 10])
    assert choose(scores, sizes, 30).tolist() == [True, False, True, False, False, True]
    assert choose(scores, sizes, 24).sum() == 2 and choose(scores, sizes, 26).sum() == 3
    assert choose(scores, sizes, 1).tolist() == [True] + [False] * 5, "at least one"
    assert choose(scores, sizes, 1e9).sum() == 4, "what is ruled out goes though there is room"


# Several processes, a cluster, a kill

SPREAD = ["dsir", "classifier", "perplexity", "prior", "representative"]


def recorded(asked: list[str]) -> Any:
    def spread(make: Any, batches: Any, seconds: float, late: Any) -> Any:
        work = make()
        for batch in batches:
            asked.append(type(make.work.step).__name__)
            yield work(batch)

    return spread


@pytest.mark.parametrize("name", SPREAD)
def test_a_cluster_scores_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "BATCH_CHARACTERS", 4000)
    pool, _ = pool_of(tmp_path, SEA, UMI)
    asked: list[str] = []
    there, _ = pool_of(tmp_path, SEA, UMI, spread=recorded(asked))
    assert np.array_equal(scored(name, pool), scored(name, there))
    assert asked and len(asked) % len(list(pool.batches())) == 0


@pytest.mark.timeout(300)
def test_several_processes_score_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "BATCH_CHARACTERS", 4000)
    pool, _ = pool_of(tmp_path, SEA, KEIYAKU)
    two, _ = pool_of(tmp_path, SEA, KEIYAKU, processes=2)
    assert np.array_equal(scored("representative", pool), scored("representative", two))


@pytest.mark.parametrize("name", SPREAD)
def test_a_kill_costs_at_most_a_shard_of_scores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool, "BATCH_CHARACTERS", 4000)
    monkeypatch.setattr(_pool, "SHARD_GROUPS", 2)
    pool, _ = pool_of(tmp_path, SEA, UMI)
    whole, asked = scored(name, pool), []
    first, _ = pool_of(tmp_path, SEA, UMI, spread=recorded(asked))
    first.folder = tmp_path / "kept"
    assert np.array_equal(scored(name, first), whole)
    groups = len(list(pool.batches()))
    passes = sorted((tmp_path / "kept").iterdir())
    assert groups >= 4 and len(asked) == groups * len(passes)
    # As a kill in the last pass leaves it: one shard of two groups.
    for path in sorted(passes[-1].glob("shard-*"))[1:]:
        path.unlink()
    del asked[:]
    again, _ = pool_of(tmp_path, SEA, UMI, spread=recorded(asked))
    again.folder = tmp_path / "kept"
    assert np.array_equal(scored(name, again), whole) and len(asked) == groups - 2
