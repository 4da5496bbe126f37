"""Ways of sampling: weights are kept, follow the losses, have caps; what cannot go together is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sampling_bench import NAMES, make, make_supply, walk

from kogata.core.errors import DataError, RecipeError
from kogata.engine.samplers.bandit import Bandit, Settings


def sources_of(rows: np.ndarray, supply: Any) -> list[set[int]]:
    """Finds for each row the sources of the documents that hold it."""
    ids = supply.store.ids
    offsets = np.asarray(supply.store.offsets, dtype=np.int64)
    owner = supply.store.sources[np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))]
    view = np.lib.stride_tricks.sliding_window_view(ids, 8)
    found = []
    for row in rows:
        here = np.nonzero((view == row[1:9].astype(int)).all(1))[0]
        found.append({int(owner[at]) for at in here})
    return found


def explicit(*weights: float) -> dict[str, Any]:
    return {"explicit": {"weights": dict(zip(NAMES, weights, strict=True))}}


def test_fixed_weights_are_kept_exactly_in_the_long_run() -> None:
    supply = make_supply([200] * 60)
    sampler: Any = make(
        supply, "full_length", {"weighted": {"by": explicit(0.5, 0.3, 0.2), "most_epochs": 99}}
    )
    found, rows = walk([sampler], 50, 50)
    assert all(len(step) == 8 for step in found)
    taken = [one.taken for one in sampler.grid[0]]
    assert taken == pytest.approx([200, 120, 80], abs=1)
    assert rows[7]["mixture"] == {"novels": 0.5, "物語": 0.3, "manuals": 0.2}
    each = sources_of(np.concatenate(found[:10]), supply)
    unique = [next(iter(one)) for one in each if len(one) == 1]
    assert [unique.count(i) / len(unique) for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.1)


def test_a_source_that_runs_out_gives_way() -> None:
    supply = make_supply([200] * 60)
    sampler: Any = make(supply, "full_length", {"weighted": {"by": explicit(0, 1, 0.1), "most_epochs": 1}})
    _, rows = walk([sampler], 50, 50)
    assert rows[0]["mixture"]["物語"] == 0.9091 and rows[-1]["mixture"]["物語"] == 0
    told = sampler.record()
    assert told["ran_out"][0] == "物語" and told["source_epochs"]["novels"] == 0
    assert told["source_epochs"]["物語"] == pytest.approx(1.0, abs=0.05)
    # When all have run out, the weights are as they were.
    _, rows = walk([sampler], 40, 90, 50)
    assert rows[-1]["mixture"]["物語"] == 0.9091


@pytest.mark.parametrize("reward", ["decrease", "loss"])
def test_the_bandit_leans_where_the_reward_is_and_explores(reward: str) -> None:
    policy = Bandit([100, 100, 200], Settings(reward=reward, memory=5, strength=3, explore=0.2))  # type: ignore[arg-type]
    assert policy.weights(0.5) == [0.25, 0.25, 0.5]
    for step in range(40):
        # The first falls, the second is high and stays, the third is low and stays.
        policy.learn([3 - 0.05 * step, 5.0, 1.0])
    assert policy.weights(0.01) == [0.25, 0.25, 0.5], "at the beginning by size"
    found = policy.weights(0.5)
    assert sum(found) == pytest.approx(1)
    best = 0 if reward == "decrease" else 1
    assert found[best] == max(found) and found[best] > 0.5
    assert min(found) >= 0.2 * 0.25


def test_a_source_hardly_seen_counts_as_the_others() -> None:
    policy = Bandit([100, 100], Settings(memory=5))
    for step in range(20):
        policy.learn([3 - 0.05 * step, None])
    assert policy.weights(0.5) == pytest.approx([0.5, 0.5])


def test_the_bandit_s_weights_reach_the_batches() -> None:
    supply = make_supply([200] * 60)
    sampler: Any = make(supply, "full_length", {"bandit": {"reward": "loss", "memory": 5, "strength": 5}})
    _, rows = walk([sampler], 60, 60)
    assert rows[0]["mixture"] != rows[-1]["mixture"] and sum(rows[-1]["mixture"].values()) == pytest.approx(
        1, abs=1e-3
    )


def test_loss_weights_grow_with_the_loss_and_are_one_on_average() -> None:
    supply = make_supply([200] * 60)
    found, rows = walk([make(supply, "full_length", {"loss": {"strength": 0.5, "cap": 1.5}})], 60, 60)
    late = np.concatenate(found[20:])
    losses, weights = late[:, :17].mean(1), late[:, -1]
    assert np.corrcoef(losses, weights)[0, 1] > 0.6
    assert weights.mean() == pytest.approx(1, abs=0.1) and weights.min() >= 0 and weights.max() < 1.9
    assert (found[0][:, -1] == 1).all(), "nothing is known before the first step"
    assert rows[-1]["weight_deviation"] > 0


def test_infobatch_leaves_out_known_easy_windows_and_makes_up_for_it() -> None:
    supply = make_supply([160] * 40)
    sampler: Any = make(supply, "full_length", {"infobatch": {"prune": 0.5, "last": 0.25}})
    windows = len(sampler.windows)
    steps = 4 * -(-windows // 8)
    found, rows = walk([sampler], steps, steps)
    epoch = windows // 8
    first = {tuple(row[:17].astype(int)) for step in found[: epoch + 1] for row in step}
    assert len(first) == windows and all((step[:, -1] == 1).all() for step in found[:epoch])
    assert rows[0]["pruned"] == 0 and 0.1 < rows[epoch + 2]["pruned"] < 0.4
    second = np.concatenate(found[epoch + 1 : epoch + 20])
    low = second[:, -1] == 2
    assert 0.1 < low.mean() < 0.6 and second[low, :17].mean() < second[~low, :17].mean()
    # The sum of weights over an epoch is what it would be without pruning.
    kept = sampler.weights.sum() if rows[-1]["pruned"] else None
    assert kept is None and rows[-1]["pruned"] == 0 and (found[-1][:, -1] == 1).all()
    middle = make(supply, "full_length", {"infobatch": {"prune": 0.5, "last": 0.0}})
    walk([middle], epoch + 3, 10 * epoch)
    assert middle.weights.sum() == pytest.approx(windows, rel=0.15)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("curriculum", "sampling"),
    [
        ("half_length", "infobatch"),
        ("length_buckets", "bandit"),
        ("easy_first", "bandit"),
        ("easy_first", "infobatch"),
        ("length_buckets", "loss"),
        ("quality_anneal", {"weighted": {"by": "unimax"}}),
    ],
)
def test_two_that_choose_the_windows_are_refused(curriculum: Any, sampling: Any) -> None:
    with pytest.raises(RecipeError, match="two settings"):
        make(make_supply(), curriculum, sampling)


def test_without_sources_there_is_nothing_to_choose_from() -> None:
    supply = make_supply()
    plain = replace(supply, store=replace(supply.store, sources=None), facts={"vocab_size": 97})
    for sampling in ("bandit", "weighted"):
        with pytest.raises(RecipeError, match=r"data\.mix"):
            make(plain, "full_length", sampling)


def test_weights_for_unknown_sources_and_sources_without_a_window() -> None:
    with pytest.raises(RecipeError, match="did you mean 'novels'"):
        by = {"explicit": {"weights": {"novel": 1, "物語": 1, "manuals": 1}}}
        make(make_supply(), "full_length", {"weighted": {"by": by}})
    with pytest.raises(DataError, match="物語 fills no window"):
        make(make_supply([300, 5, 300]), "full_length", "bandit")


def test_sources_of_one_document_are_sampled() -> None:
    found, rows = walk([make(make_supply([300, 200, 100]), "half_length", "bandit")], 30, 30)
    assert len(found) == 30 and set(rows[-1]["mixture"]) == set(NAMES)


def test_what_infobatch_leaves_out_is_made_up_for_window_by_window() -> None:
    """Over many epochs every window counts once an epoch: those of low loss by chance, the others always."""
    supply = make_supply([160] * 40)
    sampler: Any = make(supply, "full_length", {"infobatch": {"prune": 0.4}})
    count = len(sampler.windows)
    sampler.losses = np.linspace(0, 1, count, dtype=np.float32)
    sampler.losses[::7] = np.nan  # not seen yet: never left out
    total, epochs = np.zeros(count), 400
    for epoch in range(1, epochs + 1):
        sampler._begin(epoch, False)
        np.add.at(total, sampler.kept, sampler.weights)
        assert len(set(sampler.kept.tolist())) == len(sampler.kept) < count
    low = sampler.losses < np.nanmean(sampler.losses)
    assert (total[~low] == epochs).all() and np.abs(total / epochs - 1).max() < 0.2
    assert total[low].mean() / epochs == pytest.approx(1, abs=0.01)


def test_an_epoch_that_leaves_nothing_out_is_not_broken_off_for_the_last_part() -> None:
    supply = make_supply([160] * 40)
    sampler: Any = make(supply, "full_length", {"infobatch": {"last": 0.5}})
    steps = len(sampler.windows) // 8
    found, _ = walk([sampler], steps, steps)
    rows = [tuple(row[:17].astype(int)) for step in found for row in step]
    assert sampler.record() == {"epochs_begun": 1} and len(set(rows)) == len(rows)
