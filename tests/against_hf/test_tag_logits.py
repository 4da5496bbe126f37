"""A tagger in plain transformers: the same logits, and the same spans from its pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import encoder_artifact
from small_tags import tagged, tags_artifact
from training_bench import TrainingBench

from kogata.core.artifact import Artifact, Kind
from kogata.engine import tag
from kogata.engine.tag._task import Row
from kogata.stages.export import Export
from kogata.stages.train.tag import Tag

TEXTS = ["my card is lost 猫", "please money transfer the atm", "help", "new card が 犬 " * 14]


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert", "electra"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    encoder = encoder_artifact(folder / "encoder", request.param)
    examples = tags_artifact(folder / "rows", train=tagged(40), heldout=tagged(100, seed=1))
    bench = TrainingBench(folder / "bench")
    stage = Tag(method={"full": {"steps": 6, "lr": 1e-3, "batch": 8}})
    facts = stage.run({"examples": examples, "model": encoder}, bench)
    return Artifact(kind=Kind.MODEL, digest="tagger", path=bench.out, facts=facts)


def test_logits_are_those_of_transformers(trained: Artifact, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    bench = TrainingBench(tmp_path)
    Export(formats=["hf"]).run({"model": trained, "corpus": None, "adapter": None, "examples": None}, bench)
    folder = bench.out / "hf"
    assert "token-classification" in (folder / "README.md").read_text(encoding="utf-8")
    module = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = tag.load(trained.path)
    assert list(module.config.id2label.values()) == ours.scheme.classes
    assert module.config.label2id["B-動物"] == ours.scheme.classes.index("B-動物")
    _, logits = ours.encoder.logits([Row(text=text) for text in TEXTS])  # type: ignore[attr-defined]
    for text, found in zip(TEXTS[:3], logits, strict=False):
        with torch.no_grad():
            theirs = module(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1]
        assert torch.allclose(found, theirs, atol=1e-5), text
    # A text longer than what is read: its last window, margins apart, is what the module gives for it alone.
    window = list(ours.encoder.cutter.windows(ours.encoder.cutter.pieces(TEXTS[3:])[0]))[-1]  # type: ignore[attr-defined]
    with torch.no_grad():
        theirs = module(input_ids=torch.from_numpy(window.ids.ids)[None]).logits[0]
    mine = theirs[window.skip : window.skip + window.count]
    assert torch.allclose(logits[3][window.first :], mine, atol=1e-5)


def test_laid_end_to_end_the_loss_is_that_of_transformers(trained: Artifact) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from kogata.engine.tag._task import Task, Workshop
    from kogata.engine.tag._training import TagTrainee, Texts

    ours = tag.load(trained.path)
    rows = [Row(text="my card", spans=((3, 7, "THING"),)), Row(text="猫 が money transfer please")]
    task = Task(rows=rows, scheme=ours.scheme, workshop=Workshop(None, ours.scheme), groups=np.arange(2))
    encoder = ours.encoder.copy()  # type: ignore[attr-defined]
    layers = encoder.encoder.config.num_hidden_layers
    found = float(TagTrainee(encoder, Texts.of(encoder, task), layers).loss([1, 0]).detach())
    module = AutoModelForTokenClassification.from_pretrained(trained.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    total = 0.0
    for row, labels in ((rows[0], [0, ours.scheme.begin("THING")]), (rows[1], [0] * 5)):
        given = tokenizer(row.text, return_tensors="pt")
        with torch.no_grad():
            whole = torch.tensor([[-100, *labels, -100]])
            total += float(module(**given, labels=whole).loss) * len(labels)
    assert abs(found - total) < 1e-4


def test_the_pipeline_finds_the_same_spans(tmp_path: Path) -> None:
    from transformers import pipeline

    torch.set_num_threads(1)
    encoder = encoder_artifact(tmp_path / "encoder")
    examples = tags_artifact(tmp_path / "rows", train=tagged(60), heldout=tagged(100, seed=1))
    bench = TrainingBench(tmp_path / "bench")
    Tag(method="probe").run({"examples": examples, "model": encoder}, bench)
    tagger = tag.load(bench.out)
    texts = [" ".join(words) for words, _ in tagged(30, seed=2)]
    find = pipeline("token-classification", model=str(bench.out), aggregation_strategy="simple")
    agreed = 0
    for text, found in zip(texts, tag.predict(tagger, texts), strict=True):
        _, (logits,) = tagger.encoder.logits([Row(text=text)])  # type: ignore[attr-defined]
        likeliest = [tagger.scheme.classes[number] for number in logits.argmax(1).tolist()]
        # Theirs takes each piece's likeliest tag; where these make sense together, both are the same.
        if all(
            tag[0] != "I" or (at and likeliest[at - 1] in (tag, f"B-{tag[2:]}"))
            for at, tag in enumerate(likeliest)
        ):
            theirs = [(each["start"], each["end"], each["entity_group"]) for each in find(text)]
            assert theirs == [(each.start, each.end, each.label) for each in found], text
            agreed += 1
    assert agreed >= 15


def test_what_is_saved_says_how_it_was_made(trained: Artifact) -> None:
    about = json.loads((trained.path / "tagger.json").read_text(encoding="utf-8"))
    assert about["method"] == "full" and about["labels"] == ["ACT", "THING", "動物"] and not about["plain"]
    training = json.loads((trained.path / "training.json").read_text(encoding="utf-8"))
    assert set(training["methods"]) == {"features", "probe", "full"}
