"""Methods of classification: regression, n-grams, what transformers loads, frozen layers, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import rows, write_small_encoder
from training_bench import Killed, TrainingBench

from kogata.engine.classify import contrastive, full, load, ngrams, predict, probe
from kogata.engine.classify._grams import Grams, plain
from kogata.engine.classify._linear import compact, fit, folds, tune
from kogata.engine.classify._model import EncoderClassifier, as_transformers
from kogata.engine.classify._scores import lead, scores
from kogata.engine.classify._task import Task, Workshop
from kogata.engine.encoders import Encoder, pad


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and one strength of each regression: how strengths are chosen has a test of its own."""
    torch.set_num_threads(1)
    monkeypatch.setattr(probe, "STRENGTHS", (30.0,))
    monkeypatch.setattr(ngrams, "STRENGTHS", (16.0,))


def task_of(encoder: Path | None = None, each: int = 8, start: int = 0, seed: int = 0) -> Task:
    some = rows(each, start)
    names = sorted({label for _, label in some})
    targets = np.array([names.index(label) for _, label in some])
    shop = Workshop(encoder)
    return Task(texts=[text for text, _ in some], targets=targets, names=names, workshop=shop, seed=seed)


def right(classifier: Any, task: Task) -> float:
    return float((classifier.probabilities(task.texts).argmax(1) == task.targets).mean())


def test_regression_is_at_its_minimum_and_sparse_equals_dense() -> None:
    grams = Grams.learn([text for text, _ in rows()], 1, 3)
    sparse = grams.rows([text for text, _ in rows()])
    dense = torch.zeros(len(sparse), sparse.features)
    for row in range(len(sparse)):
        place = slice(sparse.starts[row], sparse.starts[row + 1])
        dense[row, sparse.columns[place]] = torch.from_numpy(sparse.values[place])
    assert torch.allclose(dense.norm(dim=1), torch.ones(len(dense)), atol=1e-5)
    targets = torch.from_numpy(task_of().targets)
    found, other = fit(dense, targets, 3, 5.0), fit(sparse, targets, 3, 5.0)
    assert torch.allclose(found.logits(dense), other.logits(sparse), atol=2e-3)
    shares = found.logits(dense).softmax(1)
    slope = dense.T @ (shares - torch.nn.functional.one_hot(targets, 3)) + found.weight / 5.0
    assert slope.abs().max() < 2e-3
    coordinates, back = compact(sparse)
    small = fit(coordinates, targets, 3, 5.0)
    weight = sparse.products()[1](back @ small.weight)
    assert coordinates.shape[1] <= len(sparse) and torch.allclose(weight, found.weight, atol=5e-3)
    assert torch.allclose(coordinates @ coordinates.T, dense @ dense.T, atol=1e-4)
    part = sparse.part(np.array([5, 1]))
    assert torch.allclose(other.logits(part), other.logits(sparse)[[5, 1]], atol=1e-5)


def test_strength_is_chosen_by_rows_not_trained_on() -> None:
    chance = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 60)
    centres = chance.normal(size=(4, 40))
    vectors = centres[targets] + 3 * chance.normal(size=(240, 40))
    strength, shares = tune(torch.from_numpy(vectors).float(), targets, 4, (1e-3, 1e-2, 100.0), 0)
    assert strength < 100 and shares[f"{strength:g}"] == max(shares.values())


def test_folds_spread_labels_and_never_judge_a_lonely_row() -> None:
    targets = np.array([0] * 9 + [1] * 8 + [2])
    found = folds(targets, 4, seed=3)
    judged = np.concatenate([held for _, held in found])
    assert sorted(judged.tolist()) == list(range(17))
    for fitted, held in found:
        assert not set(fitted) & set(held) and 17 in fitted and len(fitted) + len(held) == 18
        assert 2 <= (targets[held] == 0).sum() <= 3 and (targets[held] == 1).sum() == 2
    again, other = folds(targets, 4, seed=3), folds(targets, 4, seed=4)
    assert all((a[1] == b[1]).all() for a, b in zip(found, again, strict=True))
    assert not all(len(a[1]) == len(b[1]) and (a[1] == b[1]).all() for a, b in zip(found, other, strict=True))


def test_folds_keep_groups_together_and_every_label_in_training() -> None:
    chance = np.random.default_rng(1)
    groups = chance.integers(0, 15, 90)
    targets = chance.integers(0, 3, 90)
    targets[groups == 7] = 3
    found = folds(targets, 4, 0, groups)
    assert len(found) == 4
    for fitted, held in found:
        assert not set(groups[fitted]) & set(groups[held]), "a group lies on both sides"
        assert not (targets[held] == 3).any(), "a label of one group alone"
        assert set(targets[fitted]) == {0, 1, 2, 3}
    judged = np.concatenate([held for _, held in found])
    assert sorted(judged.tolist()) == np.flatnonzero(groups != 7).tolist()
    assert tune(torch.zeros(4, 2), np.arange(4), 4, (1.0, 2.0, 4.0), 0) == (2.0, {}), "nothing can be judged"


def test_grams_do_not_depend_on_others_and_fold_width_and_case() -> None:
    assert plain("ＡＢＣ　ﾈｺ\n") == plain(" abc ネコ")
    texts = ["吾輩は猫である", "名前はまだ無い", "吾輩は犬である", "The cat sat", "the CAT ran"]
    grams = Grams.learn(texts, 1, 3)
    whole = grams.rows(texts)
    alone = grams.rows(texts[3:4])
    place = slice(whole.starts[3], whole.starts[4])
    assert (whole.columns[place] == alone.columns).all() and np.allclose(whole.values[place], alone.values)
    assert len(grams.rows(["", "zzz"])) == 2


def test_scores_have_their_errors() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    guesses = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])
    found = scores(targets, guesses, 4)
    assert found["accuracy"] == 0.8 and found["standard_error"] == pytest.approx(
        (0.8 * 0.2 / 10) ** 0.5, abs=1e-6
    )
    assert found["macro_f1"] == pytest.approx((4 / 6 + 4 / 5 + 8 / 9) / 3, abs=1e-6)
    assert 0 < found["macro_f1_standard_error"] < 0.3
    gap, error = lead(targets, targets, guesses)
    assert gap == pytest.approx(0.2) and 0 < error < 0.3


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_plain_transformers_computes_our_logits(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    task = task_of(write_small_encoder(tmp_path / "encoder", kind))
    made = probe.fit(probe.Settings(), task, TrainingBench(tmp_path))
    facts = made.save(tmp_path / "out")
    assert facts["loads_in_transformers"] is True
    module = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert module.config.id2label == dict(enumerate(task.names))
    cut = AutoTokenizer.from_pretrained(tmp_path / "out")(list(task.texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = module(cut["input_ids"], attention_mask=cut["attention_mask"]).logits
    assert torch.allclose(made.logits(task.texts), theirs, atol=2e-3 * float(theirs.abs().max()))
    again = load(tmp_path / "out")
    assert np.allclose(again.probabilities(task.texts), made.probabilities(task.texts), atol=2e-3)
    assert predict(again, ["猫 が 好 き"])[0][0] in task.names


def test_another_architecture_keeps_its_head_beside_it(tmp_path: Path) -> None:
    task = task_of(write_small_encoder(tmp_path / "encoder", "electra", embedding_size=32))
    made = probe.fit(probe.Settings(), task, TrainingBench(tmp_path))
    assert as_transformers(made.encoder, made.weight, made.bias, made.names) is None
    assert made.save(tmp_path / "out")["loads_in_transformers"] is False
    again = load(tmp_path / "out")
    assert np.allclose(again.probabilities(task.texts), made.probabilities(task.texts), atol=1e-6)


def test_ngrams_are_saved_and_loaded(tmp_path: Path) -> None:
    task = task_of()
    made = ngrams.fit(ngrams.Settings(longest=4), task, TrainingBench(tmp_path))
    facts = made.save(tmp_path / "out")
    assert facts["architecture"] == "ngrams"
    again = load(tmp_path / "out")
    assert (again.probabilities(task.texts) == made.probabilities(task.texts)).all()
    assert right(made, task_of(each=4, start=40)) > 0.9
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"classifier.json", "model.safetensors"}


def test_training_the_encoder_lowers_the_loss_and_leaves_the_given_one_alone(tmp_path: Path) -> None:
    task = task_of(write_small_encoder(tmp_path / "encoder"))
    before = task.workshop.encoder.vectors(task.texts).clone()
    for module, settings in (
        (full, full.Settings(steps=30, lr=3e-3, batch=8)),
        (contrastive, contrastive.Settings(steps=30, lr=3e-3, batch=8)),
    ):
        bench = TrainingBench(tmp_path / module.__name__)
        made = module.fit(settings, task, bench)
        losses = [row["loss"] for row in bench.rows]
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), module.__name__
        assert right(made, task) > 0.9
        assert not torch.allclose(made.encoder.vectors(task.texts), before, atol=1e-2)
    assert torch.equal(Encoder.load(tmp_path / "encoder").vectors(task.texts), before)
    assert torch.equal(task.workshop.encoder.vectors(task.texts), before)


def test_frozen_layers_stay_and_their_outputs_are_kept(tmp_path: Path) -> None:
    from kogata.engine.classify._tuning import Trainee

    folder = write_small_encoder(tmp_path / "encoder", "modernbert")
    task = task_of(folder)
    encoder = task.workshop.encoder.copy()
    trainee = Trainee(encoder, encoder.rows(task.texts), 1)
    assert trainee.start == 1 and trainee.kept is not None
    numbers = torch.arange(6)
    whole = encoder.vectors([task.texts[i] for i in range(6)])
    # What is kept is rounded to half precision.
    assert torch.allclose(trainee.vectors(numbers), whole, atol=0.02)
    made = full.fit(full.Settings(steps=3, layers=1, batch=8), task, TrainingBench(tmp_path / "bench"))
    given, changed = task.workshop.encoder.module.state_dict(), made.encoder.module.state_dict()
    same = {name for name in given if torch.equal(given[name], changed[name])}
    assert any(name.startswith("layers.0") for name in same)
    assert not any(name.startswith("layers.1") for name in same)
    assert made.training["layers"] == 1


@pytest.mark.parametrize("module", [full, contrastive], ids=["full", "contrastive"])
def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path: Path, module: Any) -> None:
    folder = write_small_encoder(tmp_path / "encoder")
    settings = module.Settings(steps=9, batch=8, lr=1e-3)
    made: list[EncoderClassifier] = []
    for name, kill in (("whole", None), ("killed", 5)):
        bench = TrainingBench(tmp_path / name, kill_at=kill)
        if kill:
            with pytest.raises(Killed):
                module.fit(settings, task_of(folder), bench)
            assert bench.rows
            bench = TrainingBench(tmp_path / name)
        made.append(module.fit(settings, task_of(folder), bench))
    assert torch.equal(made[0].weight, made[1].weight)
    texts = task_of().texts
    assert torch.equal(made[0].encoder.vectors(texts), made[1].encoder.vectors(texts))
    other = module.fit(settings, task_of(folder, seed=1), TrainingBench(tmp_path / "seed"))
    assert not torch.equal(other.encoder.vectors(texts), made[0].encoder.vectors(texts))


def test_the_clock_ends_a_training_with_the_rate_brought_down(tmp_path: Path) -> None:
    from kogata.core.stage import Share

    task = task_of(write_small_encoder(tmp_path / "encoder"))
    bench = TrainingBench(tmp_path / "bench", tick=1.0, seconds=100.0)
    bench.share = Share(seconds=20.0)
    made = full.fit(full.Settings(steps=1000, batch=4), task, bench)
    assert 8 <= made.training["steps"] <= 21, "the probe before it takes its part of the time"
    rates = [row["lr"] for row in bench.rows]
    assert rates[-1] < 0.12 * max(rates)


def test_pad_marks_what_is_filled() -> None:
    from kogata.engine.encoders import Row

    batch = pad([Row(np.array([2, 5, 3])), Row(np.array([2, 3]))], 0)
    assert batch.mask is not None and batch.mask.tolist() == [[True] * 3, [True, True, False]]
