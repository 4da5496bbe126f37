"""Every curriculum and sampling: resumed and in several processes the same; and what each is for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sampling_bench import VOCAB, make, make_supply, same, walk

from kogata.core.errors import DataError, RecipeError
from kogata.core.registry import registry
from kogata.engine.curriculum._buckets import decompose
from kogata.engine.curriculum.length_warmup import Settings as LengthWarmup
from kogata.engine.curriculum.length_warmup import lengths
from kogata.engine.supply import FixedWindows, Supply

COLUMN = {"by": {"column": {"name": "grade"}}}
CURRICULA: list[Any] = [
    "half_length",
    "full_length",
    {"length_warmup": {"start": 8, "share": 0.5}},
    {"length_buckets": {"shortest": 8, "cycles": 2}},
    {"easy_first": COLUMN},
    {"hard_first": COLUMN},
    {"warmup_only": {**COLUMN, "share": 0.4}},
    {"quality_anneal": {**COLUMN, "share": 0.3}},
]
SAMPLINGS: list[Any] = [
    {"weighted": {"by": "unimax"}},
    {"bandit": {"memory": 4}},
    "loss",
    {"infobatch": {"last": 0.2}},
]
BOTH = [(curriculum, "proportional") for curriculum in CURRICULA]
BOTH += [("full_length", sampling) for sampling in SAMPLINGS]
BOTH += [
    ({"length_warmup": {"start": 8}}, "bandit"),
    ({"easy_first": COLUMN}, "loss"),
    ("half_length", "loss"),
]


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else next(iter(value))


def test_every_way_is_among_those_tested() -> None:
    assert set(registry.variant_names("engine.curriculum")) == {name_of(one) for one, _ in BOTH}
    assert set(registry.variant_names("engine.samplers")) == {name_of(one) for _, one in BOTH}


@pytest.mark.parametrize(("curriculum", "sampling"), BOTH, ids=lambda value: name_of(value))
def test_resumed_or_in_several_processes_the_same(curriculum: Any, sampling: Any) -> None:
    steps = 30
    whole, rows = walk([make(make_supply(), curriculum, sampling)], steps, steps)
    for at in (1, 21):
        first = make(make_supply(), curriculum, sampling)
        walk([first], at, steps)
        state = json.loads(json.dumps(first.state()))
        resumed = make(make_supply(), curriculum, sampling)
        resumed.load(state)
        assert resumed.epochs == first.epochs
        rest, again = walk([resumed], steps - at, steps, at)
        assert same(rest, whole[at:]) and again == rows[at:]
    for world in (3,):
        parts, told = walk([make(make_supply(), curriculum, sampling) for _ in range(world)], steps, steps)
        assert same(parts, whole) and told == rows
    other, _ = walk([make(make_supply(seed=1), curriculum, sampling)], 9, steps)
    assert not same(other, whole[:9])


# Lengths


def test_length_warmup_doubles_and_keeps_the_tokens_of_a_step() -> None:
    assert lengths(512, LengthWarmup(start=32, share=0.4)) == ([32, 64, 128, 256, 512], [0.1] * 4)
    assert lengths(100, LengthWarmup(start=30)) == ([50, 100], [0.3])
    assert lengths(16, LengthWarmup(start=32)) == ([16], [])
    sampler = make(
        make_supply(context=64, batch=256, micro=256), {"length_warmup": {"start": 16, "share": 0.5}}
    )
    shapes = []
    for step in range(8):
        batch = sampler.take(0, 1, step / 8)
        shapes += [tuple(part.inputs.shape) for part in batch.parts]
        assert batch.tokens == 256
    assert shapes == [(16, 16)] * 2 + [(8, 32)] * 2 + [(4, 64)] * 4


@pytest.mark.parametrize("longest", [8, 16, 64, 100])
def test_decomposition_has_every_token_once_and_no_piece_of_two_documents(longest: int) -> None:
    supply = make_supply()
    offsets = np.asarray(supply.store.offsets, dtype=np.int64)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    seen = np.zeros(supply.store.tokens, dtype=int)
    for bucket in decompose(offsets, longest, 8):
        assert bucket.length & (bucket.length - 1) == 0 and 8 <= bucket.length <= longest
        for start, first, last in zip(bucket.starts, bucket.first, bucket.last, strict=True):
            assert 0 <= first < last <= bucket.length
            seen[start + first : start + last] += 1
            # What is read before the counted part is of the same document too: positions start in it.
            assert len(set(owner[start : start + last])) == 1
    assert (seen == 1).all()


def test_buckets_predict_from_the_document_alone() -> None:
    supply = make_supply([3, 9, 40, 17, 1, 70, 5], context=32, batch=64)
    ids, offsets = supply.store.ids, [int(o) for o in supply.store.offsets]
    follows = {(0, int(ids[begin])) for begin in offsets[:-1]}
    for begin, end in zip(offsets, offsets[1:], strict=False):
        follows |= set(zip(ids[begin:end].tolist(), ids[begin + 1 : end].tolist(), strict=False))
    found, rows = walk([make(supply, {"length_buckets": {"shortest": 8}})], 40, 40)
    for step in found:
        width = step.shape[1] // 2
        for row in step:
            pairs = zip(row[:width], row[1 : width + 1], row[width + 1 :], strict=True)
            assert all((int(a), int(b)) in follows for a, b, weight in pairs if weight)
    assert {row["context"] for row in rows} == {8, 16, 32}


def test_tilt_brings_short_pieces_sooner_and_leaves_the_whole_as_it_is() -> None:
    lengths = [8, 16, 32, 64] * 40

    def early(tilt: float, cycles: int = 1) -> float:
        supply = make_supply(lengths, context=64, batch=64)
        _, rows = walk([make(supply, {"length_buckets": {"tilt": tilt, "cycles": cycles}})], 80, 80)
        seen = [row["context"] for row in rows]
        # The share of long rows overall stays near what the text holds, whatever the tilt.
        assert seen.count(64) / len(seen) == pytest.approx(64 / 120, abs=0.12)
        return float(np.mean(seen[:40]) / np.mean(seen[40:]))

    assert early(0.0) == pytest.approx(1.0, abs=0.1)
    assert early(2.0) < 0.75 < early(2.0, cycles=2)


# Difficulty


MEASURES: list[Any] = ["compressibility", "length", "rarity", "ngram_perplexity", COLUMN["by"]]


def test_every_measure_is_among_those_tested() -> None:
    assert set(registry.variant_names("engine.curriculum.difficulty")) == {name_of(one) for one in MEASURES}


@pytest.mark.parametrize("by", MEASURES, ids=name_of)
def test_every_measure_tells_plain_windows_from_rich_ones(by: Any) -> None:
    """Later documents of each twenty draw from more ids and are longer: harder by every measure."""
    supply = make_supply([40 + 10 * (number % 20) for number in range(60)])
    windows = FixedWindows(supply, 16)
    choice = _difficulty(by)
    found = choice.variant.measure(supply, windows, choice.settings)
    assert found.shape == (len(windows),) and np.isfinite(found).all()
    grade = windows.means(grades(supply))
    assert np.corrcoef(found, grade)[0, 1] > 0.5
    assert choice.variant.seconds(1e6) > 0


def grades(supply: Supply) -> np.ndarray:
    assert supply.store.columns is not None
    return supply.store.columns[:, 0].astype(float)


def _difficulty(by: Any) -> Any:
    from kogata.engine.curriculum._difficulty import Difficulty

    return Difficulty.model_validate(by)


def test_text_is_measured_by_its_own_bytes(tmp_path) -> None:
    """Two windows of other ids that spell the same text are equally hard."""
    from kogata.engine.tokenizer import byte_letters

    letters = byte_letters()
    vocabulary = {letters[byte]: byte - 32 for byte in range(33, 33 + VOCAB - 1)}
    vocabulary["".join(letters[byte] for byte in b"ab")] = 96
    (tmp_path / "tokenizer").mkdir()
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}), encoding="utf-8")
    supply = make_supply(folder=tmp_path)
    a, b = ord("a") - 32, ord("b") - 32
    ids = np.array([a, b] * 8 + [96] * 8 + [a, b] * 8, dtype="<u2")
    store = replace(supply.store, ids=ids, offsets=np.array([0, 40], dtype="<u8"))
    windows = FixedWindows(replace(supply, store=store), 8)
    choice = _difficulty("compressibility")
    found = choice.variant.measure(supply, windows, choice.settings)
    assert found[0] == found[1] == found[3] and found[2] < found[0]


def test_a_column_that_is_missing_names_the_remedy() -> None:
    sampler = make(make_supply(), {"easy_first": {"by": {"column": {"name": "grad"}}}})
    with pytest.raises(RecipeError, match="did you mean 'grade'"):
        sampler.take(0, 1, 0.0)
    none = make_supply()
    none = replace(none, facts={**none.facts, "columns": []})
    sampler = make(none, {"hard_first": {"by": {"column": {"name": "年"}}}})
    with pytest.raises(RecipeError, match=r"columns: \[年\]"):
        sampler.take(0, 1, 0.0)


def test_a_difficulty_that_is_no_number_is_refused() -> None:
    supply = make_supply()
    columns = np.full((supply.store.documents, 1), np.nan)
    broken = replace(supply, store=replace(supply.store, columns=columns))
    with pytest.raises(DataError, match="not a number"):
        make(broken, {"easy_first": COLUMN}).take(0, 1, 0.0)


def test_equally_hard_windows_are_said_to_be() -> None:
    said: list[str] = []
    supply = make_supply([400], say=said.append)
    make(supply, {"easy_first": {"by": "length"}}).take(0, 1, 0.0)
    assert any("equally hard" in line for line in said)


# Orders


def difficulties(curriculum: Any, steps: int = 100, **more: Any) -> list[float]:
    _, rows = walk([make(make_supply(**more), curriculum)], steps, steps)
    return [row["difficulty"] for row in rows]


def test_easy_first_climbs_and_ends_with_all() -> None:
    found = difficulties({"easy_first": {**COLUMN, "start": 0.2, "until": 0.7}})
    assert max(found[:3]) < 0.25
    assert np.mean(found[:20]) < np.mean(found[30:60]) and np.mean(found[80:]) == pytest.approx(0.5, abs=0.15)
    turned = difficulties({"hard_first": {**COLUMN, "start": 0.2, "until": 0.7}})
    assert min(turned[:3]) > 0.75 and np.mean(turned[:20]) > np.mean(turned[30:60])


def test_a_reversed_column_turns_the_order() -> None:
    reverse = {"by": {"column": {"name": "grade", "reverse": True}}}
    supply = make_supply()
    grade = FixedWindows(supply, 16).means(grades(supply))
    for by, sign in ((COLUMN, 1), (reverse, -1)):
        sampler = make(supply, {"warmup_only": {**by, "share": 0.9}})
        first = walk([sampler], 3, 100)[0]
        ids = np.concatenate([rows[:, :17] for rows in first])
        windows = FixedWindows(supply, 16)
        rows = windows.read(np.arange(len(windows)))
        place = {tuple(row): value for row, value in zip(rows, grade, strict=True)}
        seen = [sign * place[tuple(row.astype(int))] for row in ids]
        assert seen == sorted(seen) and np.mean(seen) < np.mean(sign * grade)


def test_warmup_only_is_in_order_then_shuffled() -> None:
    found = difficulties({"warmup_only": {**COLUMN, "share": 0.1}})
    warm = found[:10]
    assert warm == sorted(warm) and warm[-1] < 0.6
    assert np.std(found[30:]) < 0.2 and np.mean(found[30:]) == pytest.approx(0.5, abs=0.1)


def test_the_best_text_comes_at_the_end_and_only_then() -> None:
    found = difficulties({"quality_anneal": {**COLUMN, "share": 0.25, "best": 0.3}})
    assert max(found[75:]) < 0.3 and np.mean(found[:75]) == pytest.approx(0.5, abs=0.1)


def test_text_is_seen_evenly_but_for_the_order() -> None:
    """After an easy start what was not seen yet comes first: over a whole epoch all windows are seen."""
    supply = make_supply()
    windows = FixedWindows(supply, 16)
    steps = -(-len(windows) // 8)
    sampler = make(supply, {"warmup_only": {**COLUMN, "share": 0.3}})
    found, _ = walk([sampler], steps, steps)
    seen = {tuple(row[:17].astype(int)) for rows in found for row in rows}
    assert len(seen) == len({tuple(row) for row in windows.read(np.arange(len(windows)))})
    assert sampler.epochs == pytest.approx(1.0, abs=0.05)


def test_one_document_and_few_windows() -> None:
    for curriculum in CURRICULA:
        supply = make_supply([40], context=16, batch=64)
        found, _ = walk([make(supply, curriculum)], 6, 6)
        assert len(found) == 6 and all(math.isfinite(rows.sum()) for rows in found)


def test_windows_are_halved_early_and_every_window_is_seen_once_an_epoch() -> None:
    """Two rows of half the length are the window itself: over an epoch each token is a target once."""
    supply = make_supply(context=128, batch=256, micro=256)
    windows = FixedWindows(supply, 128)
    steps = len(windows) // 2
    sampler = make(supply, {"easy_first": {**COLUMN, "until": 0.8}})
    found, _ = walk([sampler], steps, steps, most=256)
    shapes = [rows.shape for rows in found]
    assert shapes[0] == (4, 129) and shapes[-1] == (2, 257) and len({shape[1] for shape in shapes}) == 2
    rows = {tuple(row) for row in windows.read(np.arange(len(windows)))}
    seen: list[tuple[int, ...]] = []
    for step in found:
        width = step.shape[1] // 2
        ids = step[:, : width + 1].astype(int)
        whole = ids if width == 128 else np.concatenate([ids[::2], ids[1::2, 1:]], 1)
        assert width == 128 or (ids[::2, -1] == ids[1::2, 0]).all()
        seen += [tuple(row) for row in whole]
    assert len(set(seen)) == len(seen) == 2 * steps and set(seen) <= rows
    parts, _ = walk(
        [make(supply, {"easy_first": {**COLUMN, "until": 0.8}}) for _ in range(3)], 5, steps, most=256
    )
    assert same(parts, found[:5])


def test_a_finished_run_that_is_resumed_tells_the_same() -> None:
    first = make(make_supply(), {"warmup_only": COLUMN})
    walk([first], 9, 20)
    again = make(make_supply(), {"warmup_only": COLUMN})
    again.load(json.loads(json.dumps(first.state())))
    assert again.record() == first.record() and first.record()["seen_share"] > 0  # type: ignore[attr-defined]


def test_memory_and_time_of_measuring_are_forecast() -> None:
    from kogata.engine.curriculum import measuring_bytes, measuring_seconds
    from kogata.engine.sampling import Curriculum

    plain, ordered = Curriculum.of("half_length"), Curriculum.of("easy_first", by="ngram_perplexity")
    cheap = Curriculum.of("easy_first", by="rarity")
    assert (
        measuring_bytes(plain, 1e6, 256)
        == measuring_seconds(plain, 1e6)
        == 0
        == measuring_bytes("auto", 1, 8)
    )
    assert measuring_bytes(ordered, 1e6, 256) > measuring_bytes(cheap, 1e6, 256) > 0
    assert measuring_seconds(ordered, 1e7) > measuring_seconds(ordered, 1e6) > 0
