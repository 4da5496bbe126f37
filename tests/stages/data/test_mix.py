"""data.mix: weights become amounts of text, sources keep their names, held-out text passes untouched."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from training_bench import MACHINE, TrainingBench

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine, Receipt
from kogata.core.recipe import Recipe
from kogata.core.stage import Share
from kogata.engine.mix.regmix import fit
from kogata.engine.mixture import portions, take_portion, weights_of
from kogata.engine.sampling import Sampling
from kogata.engine.text import read_corpus, seal_documents, utf8_length
from kogata.runtime.load import load_recipe
from kogata.runtime.plan import wire
from kogata.stages.data.mix import Mix

NOVEL = "The rain went on over the town, and nobody spoke of the letter that lay on the table.\n\n"
STORY = "ある日の暮方の事である。一人の下人が、羅生門の下で雨やみを待っていた。\n\n"


def corpus(folder: Path, text: str, documents: int, repeat: int, heldout: int = 1) -> Artifact:
    folder.mkdir(parents=True)
    made = [Document(f"h{i}", f"{i} {text}", "heldout", "held.txt") for i in range(heldout)]
    made += [Document(f"d{i}", f"{i} " + text * repeat, source="a.txt") for i in range(documents)]
    facts = seal_documents(made, folder)
    return Artifact(kind=Kind.CORPUS, digest=folder.name, path=folder, facts=facts)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    place = tmp_path_factory.mktemp("sources")
    return [
        corpus(place / "novels", NOVEL, 40, 8),
        corpus(place / "stories", STORY, 10, 5, heldout=2),
        corpus(place / "one", NOVEL[::-1], 1, 60, heldout=0),
    ]


def mixed(sources: list[Artifact], folder: Path, **settings: Any) -> tuple[dict[str, Any], TrainingBench]:
    names = settings.pop("names", ["novels", "物語", "one"][: len(sources)])
    bench = TrainingBench(folder)
    facts = Mix(names=names, **settings).run({"corpora": sources}, bench)
    json.dumps(facts)
    return facts, bench


def amounts(bench: TrainingBench) -> Counter[str]:
    found: Counter[str] = Counter()
    for document in read_corpus(bench.out, "train"):
        found[document.meta["group"]] += utf8_length(document.text)
    return found


def test_by_size_is_everything_once(sources: list[Artifact], tmp_path: Path) -> None:
    facts, bench = mixed(sources, tmp_path)
    given = [document.text for one in sources for document in read_corpus(one.path, "train")]
    assert [document.text for document in read_corpus(bench.out, "train")] == given
    held = list(read_corpus(bench.out, "heldout"))
    assert [document.meta["group"] for document in held] == ["novels", "物語", "物語"]
    assert len({document.id for document in held}) == 3
    assert facts["splits"]["train"]["documents"] == 51 and facts["mixture"]["one"]["epochs"] == 1.0
    account = facts["accounts"][bench.label]
    assert account["read"] == account["kept"] == 54 and not account["reasons"]


@pytest.mark.parametrize("keep", [0.5, 1.0, 2.0])
def test_explicit_weights_are_kept_to_a_few_percent(
    sources: list[Artifact], tmp_path: Path, keep: float
) -> None:
    weights = {"novels": 0.5, "物語": 0.3, "one": 0.2}
    facts, bench = mixed(sources, tmp_path, method={"explicit": {"weights": weights}}, keep=keep)
    found = amounts(bench)
    total = sum(one.facts["splits"]["train"]["bytes"] for one in sources)
    assert sum(found.values()) == pytest.approx(keep * total, rel=0.03)
    for name, weight in weights.items():
        # A source of one document is cut; the others are cut at a document's paragraph.
        assert found[name] == pytest.approx(weight * keep * total, rel=0.08), name
    again, other = mixed(sources, tmp_path / "again", method={"explicit": {"weights": weights}}, keep=keep)
    assert again == facts
    assert (other.out / "train-00000.jsonl.zst").read_bytes() == (
        bench.out / "train-00000.jsonl.zst"
    ).read_bytes()
    ids = [document.id for document in read_corpus(bench.out, "train")]
    assert len(set(ids)) == len(ids)


def test_a_source_that_runs_out_gives_way_and_is_named(sources: list[Artifact], tmp_path: Path) -> None:
    facts, bench = mixed(sources, tmp_path, method="unimax", most_epochs=2)
    mixture = facts["mixture"]
    assert mixture["物語"]["ran_out"] and mixture["物語"]["epochs"] == 2 and not mixture["novels"]["ran_out"]
    assert any("物語 has run out" in line for line in bench.logs)
    total = sum(one.facts["splits"]["train"]["bytes"] for one in sources)
    assert sum(amounts(bench).values()) == pytest.approx(total, rel=0.03)
    texts = Counter(d.text for d in read_corpus(bench.out, "train") if d.meta["group"] == "物語")
    assert set(texts.values()) == {2}


def test_when_all_run_out_the_mixture_is_smaller() -> None:
    found = portions({"a": 0.5, "b": 0.5}, {"a": 10, "b": 20}, 1000, 3)
    assert {name: one.epochs for name, one in found.items()} == {"a": 3.0, "b": 3.0}
    assert all(one.ran_out for one in found.values())


def test_unimax_is_the_published_algorithm() -> None:
    """Smallest first: an even part of what is left, or so many epochs of it, whichever is less."""
    sizes, total, cap = {"a": 5, "b": 100, "c": 1000, "d": 40}, 600, 4.0
    expected, left = {}, float(total)
    order = sorted(sizes, key=lambda name: sizes[name])
    for position, name in enumerate(order):
        expected[name] = min(left / (len(order) - position), cap * sizes[name])
        left -= expected[name]
    found = portions(weights_of("unimax", None, sizes), sizes, total, cap)
    assert {name: one.epochs * one.size for name, one in found.items()} == pytest.approx(expected)


def test_temperature_lies_between_size_and_even() -> None:
    sizes = {"large": 900, "small": 100}
    settings = Mix(method={"temperature": {"temperature": 2}}).method.settings  # type: ignore[arg-type]
    found = weights_of("temperature", settings, sizes)
    assert found == pytest.approx({"large": 0.75, "small": 0.25})


def test_a_part_is_chosen_by_content_and_its_last_document_cut() -> None:
    documents = [Document(str(i), f"{i} " + STORY * 20) for i in range(10)]
    left_out: list[str] = []
    found = list(take_portion(lambda: documents, "s", 0.25, lambda document: left_out.append(document.id)))
    whole = [document for document in found if document.text in {other.text for other in documents}]
    cut = [document for document in found if document not in whole]
    assert len(whole) == 2 and len(cut) == 1 and len(left_out) == 7
    assert any(other.text.startswith(cut[0].text) and cut[0].text.endswith("\n\n") for other in documents)
    turned = list(take_portion(lambda: documents[::-1], "s", 0.25, lambda document: None))
    assert {document.text for document in turned} == {document.text for document in found}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": {"explicit": {"weights": {"novls": 1, "物語": 1, "one": 1}}}}, "did you mean 'novels'"),
        ({"method": {"explicit": {"weights": {"novels": 1, "one": 1}}}}, "leave out '物語'"),
        ({"names": ["a", "b"]}, "not as many names"),
    ],
)
def test_weights_and_names_that_do_not_fit(sources: list[Artifact], settings: dict, told: str) -> None:
    stage = Mix(**{"names": ["novels", "物語", "one"], **settings})
    many: dict[str, Any] = {"corpora": {"many": [one.facts for one in sources]}}
    with pytest.raises(RecipeError, match=told):
        stage.forecast(many, Machine(), Share())


def test_nothing_to_mix(tmp_path: Path) -> None:
    empty = corpus(tmp_path / "empty", NOVEL, 0, 1)
    with pytest.raises(DataError, match="nothing to mix"):
        mixed([empty], tmp_path / "out", names=["empty"])
    for wrong in ({"x": -1}, {"x": 0}, {}):
        with pytest.raises(ValidationError):
            Mix(method={"explicit": {"weights": wrong}})  # type: ignore[arg-type]


def test_forecast_is_near_what_comes(sources: list[Artifact], tmp_path: Path) -> None:
    settings = {"method": "unimax", "keep": 0.7}
    stage = Mix(names=["novels", "物語", "one"], **settings)
    many: dict[str, Any] = {"corpora": {"many": [one.facts for one in sources]}}
    forecast = stage.forecast(many, Machine(), Share()).facts
    facts, _ = mixed(sources, tmp_path, **settings)
    for split in ("train", "heldout"):
        assert forecast["splits"][split]["bytes"] == pytest.approx(facts["splits"][split]["bytes"], rel=0.05)
    assert forecast["mixture"] == facts["mixture"]


def test_labels_name_the_sources_and_later_stages_take_the_mixture(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(NOVEL, encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(
        "stages:\n"
        "- data.read: {as: novels, path: a.txt}\n"
        "- data.read: {as: manuals, path: a.txt}\n"
        "- data.mix: {method: {explicit: {weights: {novels: 2, manuals: 1}}}}\n"
        "- tokenizer.train: {}\n"
        "- tokenizer.encode: {}\n",
        encoding="utf-8",
    )
    inputs, _ = wire(load_recipe(path))
    assert inputs["data.mix"] == {"corpora": ["novels", "manuals"]}
    assert inputs["tokenizer.train"]["corpus"] == "data.mix" == inputs["tokenizer.encode"]["corpus"]
    facts = {"splits": {"train": {"documents": 1, "bytes": 5, "characters": 5}}}
    many: dict[str, Any] = {"corpora": {"many": [{"label": name, **facts} for name in ("novels", "manuals")]}}
    made = Mix().resolve(many, Machine(), Share())
    assert made.stage.names == ["novels", "manuals"] and made.reasons["names"]  # type: ignore


def bench_of_pairs(folder: Path, seen: list[Any], noise: float = 0.0) -> TrainingBench:
    """Makes a bench on which the small models are counts of pairs of letters, drawn from each source."""
    bench = TrainingBench(folder)
    chance = random.Random(1)

    def nested(steps: Any, budget: Any, seed: int) -> list[Receipt]:
        inputs, _ = wire(Recipe(name="trial", stages=tuple(steps), seed=seed))
        reads = [step.stage for step in steps if step.name == "data.read"]
        (mix,) = [step.stage for step in steps if step.name == "data.mix"]
        texts = dict(zip(mix.names, (text_of(Path(read.path)) for read in reads), strict=True))
        held = text_of(Path(reads[0].heldout))
        assert [read.heldout for read in reads[1:]] == [0] * (len(reads) - 1)
        seen.append((inputs, held))
        receipts = []
        for step in steps:
            if step.name == "train.pretrain":
                weights = step.stage.sampling.settings.by.settings.weights
                pieces = [texts[name][: int(6000 * weight)] for name, weight in weights.items()]
                loss = noise * chance.random() if noise else pair_loss(pieces, held)
                facts = {"bits_per_byte": {"value": loss}}
                label = f"{step.label}-score"
                receipts.append(Receipt(key="k", label=label, stage="evaluate", status="done", facts=facts))
        return receipts

    bench.run = nested  # type: ignore[method-assign]
    return bench


def text_of(path: Path) -> str:
    return "".join(json.loads(line)["text"] for line in path.read_text("utf-8").splitlines())


def pair_loss(pieces: list[str], held: str) -> float:
    pairs: Counter[tuple[str, str]] = Counter()
    firsts: Counter[str] = Counter()
    for piece in pieces:
        pairs.update(itertools.pairwise(piece))
        firsts.update(piece)
    return -sum(
        math.log2((pairs[pair] + 0.05) / (firsts[pair[0]] + 0.05 * 60)) for pair in itertools.pairwise(held)
    ) / len(held)


@pytest.fixture(scope="module")
def clean_and_noise(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Prose with some held out, and four times as much of letters by chance, with some held out too."""
    place, chance = tmp_path_factory.mktemp("clean"), random.Random(0)
    words = (NOVEL + NOVEL.upper()).split()

    def made(name: str, draw: Any, count: int) -> Artifact:
        documents = [Document("h", draw(), "heldout")] + [Document(str(i), draw()) for i in range(count)]
        (place / name).mkdir()
        facts = seal_documents(documents, place / name)
        return Artifact(kind=Kind.CORPUS, digest=name, path=place / name, facts=facts)

    prose = made("prose", lambda: " ".join(chance.choices(words, k=200)), 10)
    noise = made("noise", lambda: "".join(chance.choices("abcdefghijklmnop qrstuvwxyz", k=1000)), 40)
    return {"散文": prose, "noise": noise}


def test_trials_weigh_text_and_not_noise(clean_and_noise: dict[str, Artifact], tmp_path: Path) -> None:
    names, corpora = list(clean_and_noise), list(clean_and_noise.values())
    seen: list[Any] = []
    bench = bench_of_pairs(tmp_path, seen)
    method = {"regmix": {"target": ["散文"], "proxies": 12, "tokens": 10_000}}
    stage = Mix(names=names, method=method)  # type: ignore[arg-type]
    facts = stage.run({"corpora": corpora}, bench)
    json.dumps(facts)
    assert facts["mixture"]["散文"]["weight"] > 0.85, "by size it would be a fifth"
    found = amounts(bench)
    assert found["散文"] == 4 * corpora[0].facts["splits"]["train"]["bytes"], "until it has run out"
    trials = facts["accounts"][bench.label]["extra"]["trials"]
    assert len(trials["mixtures"]) == len(trials["bits_per_byte"]) == 12 and not trials["kept_by_size"]
    sizes = [corpus.facts["splits"]["train"]["bytes"] for corpus in corpora]
    assert trials["mixtures"][0] == pytest.approx([size / sum(sizes) for size in sizes], abs=1e-6)
    assert trials["predicted"] < trials["predicted_by_size"] - trials["error"]
    ((inputs, held),) = seen
    assert held == next(read_corpus(corpora[0].path, "heldout")).text
    assert inputs["regmix-3"] == {"tokens": "regmix-tokens", "model": None}
    assert inputs["regmix-3-score"]["model"] == "regmix-3"
    assert inputs["regmix-3-score"]["corpus"] == "regmix-mix"
    assert any(line.startswith("12 small models") for line in bench.logs)
    again = bench_of_pairs(tmp_path / "again", seen)
    assert stage.run({"corpora": corpora}, again) == facts


def test_trials_that_tell_nothing_leave_the_mixture_as_the_sizes_say(
    clean_and_noise: dict[str, Artifact], tmp_path: Path
) -> None:
    names, corpora = list(clean_and_noise), list(clean_and_noise.values())
    bench = bench_of_pairs(tmp_path, [], noise=0.01)
    method = {"regmix": {"proxies": 16, "tokens": 10_000}}
    facts = Mix(names=names, method=method).run({"corpora": corpora}, bench)  # type: ignore[arg-type]
    assert facts["accounts"][bench.label]["extra"]["trials"]["kept_by_size"]
    assert {part["epochs"] for part in facts["mixture"].values()} == {1.0}
    assert any("know no better mixture" in line for line in bench.logs)


def test_the_plan_counts_the_small_models_and_names_what_does_not_fit(
    clean_and_noise: dict[str, Artifact], tmp_path: Path
) -> None:
    names, corpora = list(clean_and_noise), list(clean_and_noise.values())
    many: dict[str, Any] = {"corpora": {"many": [one.facts for one in corpora]}}

    def seconds(method: Any) -> float:
        made = Mix(names=names, method=method).forecast(many, MACHINE, Share())
        assert made.facts["mixture"]["noise"]["epochs"] == 1.0
        return made.cost.seconds or 0.0

    plain, few = seconds("proportional"), seconds({"regmix": {"proxies": 6}})
    assert few > plain + 20 and seconds({"regmix": {"proxies": 12}}) - few == pytest.approx(
        few - plain, rel=0.4
    )
    assert seconds({"regmix": {"proxies": 6, "tokens": "2M"}}) > few + 5
    with pytest.raises(RecipeError, match="did you mean 'noise'"):
        seconds({"regmix": {"target": ["nois"]}})
    with pytest.raises(RecipeError, match="there is one"):
        Mix(names=["a"], method="regmix").forecast(  # type: ignore[arg-type]
            {"corpora": {"many": [corpora[0].facts]}}, MACHINE, Share()
        )
    with pytest.raises(ValidationError, match="method of data.mix"):
        Sampling.model_validate({"weighted": {"by": "regmix"}})
    bare = {name: corpus(tmp_path / name, NOVEL, 3, 2, heldout=0) for name in "ab"}
    with pytest.raises(DataError, match="no held-out text"):
        Mix(names=["a", "b"], method="regmix").run(  # type: ignore[arg-type]
            {"corpora": list(bare.values())}, bench_of_pairs(tmp_path / "none", [])
        )


def test_the_regression_finds_a_middle_that_is_best() -> None:
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    losses = 2 + (weights[:, 0] - 0.5) ** 2 + 0.3 * weights[:, 1]
    predict, error = fit(weights, losses)
    grid = np.random.default_rng(1).dirichlet([1, 1, 1], 4000)
    best = grid[np.argmin(predict(grid))]
    assert error < 0.01 and best == pytest.approx([0.5, 0.0, 0.5], abs=0.06)
