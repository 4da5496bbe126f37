"""Windows: every token once an epoch, the same for any number of processes, resumable anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from kogata.engine.sampler import RampSampler, WindowSampler, shuffled


def stream(documents: int = 7) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.random.default_rng(0).integers(3, 40, documents)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    return np.arange(int(offsets[-1]), dtype=np.uint16), offsets


def sampler(**more: int) -> WindowSampler:
    ids, offsets = stream()
    settings = {"context": 5, "batch": 4, "seed": 3, **more}
    return WindowSampler(ids, offsets, **settings)


def rows(step) -> np.ndarray:
    parts = [np.concatenate([p.inputs.numpy(), p.targets.numpy()[:, -1:]], 1) for p in step.parts]
    return np.concatenate(parts) if parts else np.zeros((0, 6), dtype=np.int64)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 1000])
def test_shuffled_is_an_order(size: int) -> None:
    found = shuffled(np.arange(size), size, 5)
    assert sorted(found.tolist()) == list(range(size))
    if size > 5:
        assert found.tolist() != list(range(size))
        assert found.tolist() != shuffled(np.arange(size), size, 6).tolist()


def test_shuffled_never_changes() -> None:
    """A resumed run on a newer release must see the same order."""
    assert shuffled(np.arange(10), 10, 1).tolist() == [1, 0, 8, 9, 4, 3, 7, 2, 5, 6]


def test_an_epoch_has_every_token_once() -> None:
    made = sampler(batch=1)
    targets = np.concatenate([rows(made.take())[:, 1:].ravel() for _ in range(made.windows)])
    assert len(set(targets.tolist())) == len(targets) == made.windows * 5
    assert made.epochs == 1.0


def test_windows_go_on_from_document_to_document() -> None:
    _, offsets = stream()
    made = sampler(batch=1)
    starts = {int(o) for o in offsets[:-1]}
    for _ in range(made.windows):
        row = rows(made.take())[0].tolist()
        for left, right in zip(row, row[1:], strict=False):
            assert right == left + 1 or right in starts


def test_epochs_differ_and_seeds_differ() -> None:
    made = sampler(batch=1)
    first = [rows(made.take())[0].tolist() for _ in range(made.windows)]
    second = [rows(made.take())[0].tolist() for _ in range(made.windows)]
    assert first != second
    assert rows(sampler(seed=4).take()).tolist() != rows(sampler().take()).tolist()


def test_the_batch_is_the_same_for_any_number_of_processes() -> None:
    for world in (1, 2, 3, 6):
        for step in range(12):
            whole, parts = sampler(), []
            whole.load({"taken": 4 * step})
            for rank in range(world):
                one = sampler(micro=2)
                one.load({"taken": 4 * step})
                taken = one.take(rank, world)
                assert taken.count == 20 and taken.tokens == 20
                parts.append(rows(taken))
            assert np.concatenate(parts).tolist() == rows(whole.take()).tolist()


def test_goes_on_from_any_position() -> None:
    whole = sampler()
    batches = [rows(whole.take()) for _ in range(30)]
    for at in (0, 7, 29):
        resumed = sampler()
        resumed.load({"taken": 4 * at})
        assert rows(resumed.take()).tolist() == batches[at].tolist()


def test_shards_are_one_stream() -> None:
    ids, offsets = stream()
    shards = [ids[:11], ids[11:12], ids[12:]]
    one = WindowSampler(ids, offsets, context=5, batch=8, seed=3)
    many = WindowSampler(shards, offsets, context=5, batch=8, seed=3)
    assert rows(one.take()).tolist() == rows(many.take()).tolist()


def test_micro_batches_are_no_larger_than_asked() -> None:
    for part in sampler(batch=7, micro=3).take().parts:
        assert part.inputs.shape[0] <= 3


def test_ramp_goes_from_short_to_long_and_resumes() -> None:
    ids, offsets = stream()

    def ramp() -> RampSampler:
        short = WindowSampler(ids, offsets, context=4, batch=4, seed=1)
        return RampSampler([short, WindowSampler(ids, offsets, context=8, batch=2, seed=2)], [0.5])

    made = ramp()
    widths = [next(iter(made.take(progress=p).parts)).inputs.shape[1] for p in (0.0, 0.49, 0.5, 0.9)]
    assert widths == [4, 4, 8, 8]
    other = ramp()
    other.load(made.state())
    a, b = (next(iter(s.take(progress=0.9).parts)).inputs for s in (made, other))
    assert a.equal(b)


def test_documents_apart_begin_with_the_end_token_before_them() -> None:
    ids, offsets = stream()
    made = WindowSampler(ids, offsets, context=9, batch=3, micro=2, seed=3, apart=True)
    plain = WindowSampler(ids, offsets, context=9, batch=3, micro=2, seed=3)
    last = {int(end) - 1 for end in offsets[1:]}
    whole = inner = 0
    for _ in range(2 * made.windows // 3):  # Past the first epoch.
        for part, other in zip(made.take().parts, plain.take().parts, strict=True):
            assert (part.inputs == other.inputs).all() and other.documents is None
            wanted = [[i for i in range(1, 9) if row[i] in last] + [9] for row in part.inputs.tolist()]
            if part.documents is None:
                assert all(len(ends) == 1 for ends in wanted)
                whole += 1
            else:
                assert part.documents == wanted
                inner += 1
    assert whole and inner
