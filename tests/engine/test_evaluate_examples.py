"""Scores of rows: the loss of answers is that of their tokens alone, and samples begin as rows do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_spec, write_small_model

from kogata.engine.evaluate_examples import answer_loss, answers, copied, renderer_of
from kogata.engine.examples import Example, ExamplesWriter
from kogata.engine.load import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    write_small_model(folder, small_spec(context=256))
    loaded = load_model(str(folder))
    return loaded, renderer_of(loaded, folder)


def write(folder: Path, rows: list[Example]) -> Path:
    folder.mkdir()
    writer = ExamplesWriter(folder)
    for row in rows:
        writer.write(row, "heldout")
    writer.close()
    return folder


def row(number: int, prompt: str, completion: str) -> Example:
    fields = {"prompt": prompt, "completion": completion}
    return Example(id=str(number), form="completion", source=f"a.csv:{number}", fields=fields)


def test_the_loss_is_of_answers_alone_and_long_rows_are_counted(model: Any, tmp_path: Path) -> None:
    loaded, renderer = model
    rows = [row(2, "The sea?", "Grey."), row(3, "海は？", "青い。"), row(4, "x" * 500, "too long")]
    found = answer_loss(loaded, renderer, write(tmp_path / "rows", rows), "heldout")
    total, count = 0.0, 0
    for example in rows[:2]:
        rendered = renderer.render(example)
        ids = torch.tensor([rendered.ids])
        with torch.no_grad():
            chances = loaded.decoder.logits(loaded.decoder.hidden(ids)).log_softmax(-1)[0]
        for at in range(1, len(rendered.ids)):
            if rendered.weights[at]:
                total -= float(chances[at - 1, rendered.ids[at]])
                count += 1
    assert found is not None and found["rows"] == 2 and found["rows_unfit"] == 1
    assert found["answer_tokens"] == count < found["tokens"]
    assert found["loss_nats_per_token"] == pytest.approx(total / count, rel=1e-4)
    assert answer_loss(loaded, renderer, tmp_path / "rows", "test") is None


def test_samples_answer_the_prompt_and_texts_are_begun(model: Any, tmp_path: Path) -> None:
    loaded, renderer = model
    story = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 3
    texts = [story, "The quick brown fox jumps over the lazy dog again"]
    rows = [row(2, "The sea?", "Grey.")]
    rows += [Example(id=text[:4], form="text", fields={"text": text}) for text in texts]
    found = answers(loaded, renderer, write(tmp_path / "rows", rows), "heldout", count=3, max_tokens=6)
    assert [item["prompt"] for item in found] == [
        "The sea?", story[:24], "The quick brown fox jumps over the lazy",
    ]  # fmt: skip
    assert found[0]["expected"] == "Grey." and found == answers(
        loaded, renderer, tmp_path / "rows", "heldout", count=3, max_tokens=6
    )


def test_answers_that_stand_in_the_training_rows_are_counted(tmp_path: Path) -> None:
    writer = ExamplesWriter(tmp_path)
    for number, text in enumerate(["The sea is grey.", "海は 青い。\nとても青い。"]):
        writer.write(row(number, "?", text), "train")
    writer.close()
    shown = [
        {"text": "The sea  is grey.\n", "expected": "The sea is blue."},
        {"text": "海は 青い。", "expected": "海は 青い。 とても青い。"},
        {"text": "sea is grey.", "expected": "Grey."},
        {"text": " ", "expected": "x"},
    ]
    assert copied(shown, tmp_path) == {"answers": 4, "copied": 2, "expected_copied": 1}
