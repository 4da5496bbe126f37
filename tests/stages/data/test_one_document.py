"""A corpus of one document goes through every stage of data, or stops with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dedup_bench import corpus_of, data_bench
from web_archives import JAPANESE, PROSE

from kogata.core.artifact import Artifact, Document
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine.text import read_corpus
from kogata.stages.data.dedup import Dedup
from kogata.stages.data.filter import Filter
from kogata.stages.data.mix import Mix
from kogata.stages.data.select import Select

ENGLISH = f"In the year 1843. {PROSE}"
TEXTS = [ENGLISH, JAPANESE]


def one(folder: Path, text: str) -> Artifact:
    return corpus_of(folder / "corpus", [Document("only", text)])


def left(folder: Path) -> list[str]:
    return [document.text for document in read_corpus(folder, "train")]


@pytest.mark.parametrize("text", TEXTS)
def test_filters_keep_it(text: str) -> None:
    rules = {"gopher_repetition": {}, "c4": {"min_sentences": None}, "prior": {}}
    stage = Filter.model_validate({"rules": rules, "processes": 1})
    assert [document.text for document in stage.each([Document("only", text)], Account())] == [text]


def test_a_classifier_says_that_it_is_too_little() -> None:
    stage = Filter.model_validate({"rules": ["classifier"], "processes": 1})
    with pytest.raises(DataError, match="too little text") as error:
        list(stage.each([Document("only", ENGLISH)], Account()))
    assert "1 of the corpus" in (error.value.found or "")


@pytest.mark.parametrize("text", TEXTS)
def test_deduplication_keeps_it(text: str, tmp_path: Path) -> None:
    bench = data_bench(tmp_path)
    stage = Dedup.model_validate({"methods": ["heldout", "exact", "minhash", "lines"], "processes": 1})
    facts = stage.run({"corpus": one(tmp_path, text), "earlier": None}, bench)
    assert left(bench.out) == [text] and facts["splits"]["train"]["documents"] == 1


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("method", ["random", "longest", "prior", "perplexity", "representative", "dsir"])
@pytest.mark.parametrize("keep", ["auto", 0.1])
def test_a_choice_keeps_it(method: str, text: str, keep: Any, tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text(PROSE[::-1], encoding="utf-8")
    target = str(tmp_path / "target.txt") if method == "dsir" else None
    corpus = one(tmp_path, text)
    facts = {"corpus": {**corpus.facts, "kind": "corpus"}, "target": None, "model": None}
    stage = Select.model_validate({"method": method, "keep": keep, "target": target})
    bench = data_bench(tmp_path)
    stage = stage.resolve(facts, Machine(cores=2, gemm_flops=1e11, gemm_small_flops=8e10), Share()).stage
    stage.run({"corpus": corpus, "target": None, "model": None}, bench)
    assert left(bench.out) == [text]


def test_a_mixture_of_one_source_is_that_source(tmp_path: Path) -> None:
    bench = data_bench(tmp_path)
    Mix().run({"corpora": [one(tmp_path, JAPANESE)]}, bench)
    assert left(bench.out) == [JAPANESE]
