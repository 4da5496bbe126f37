"""The page of a run that learned from rows: loss of the answers before and after, answers side by side."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fabricated_run import HOSTILE, cost
from rich.console import Console

from kogata.core.receipt import Receipt
from kogata.report import tables
from kogata.report.page import make_page
from tests.report.test_page import Page

ROWS = {"read": 420, "read_bytes": 90_000, "kept": 400, "kept_bytes": 30_000, "reasons": {"empty answer": 20}}
SCORE = {"split": "heldout", "loss_nats_per_token": 0.4213, "base_loss_nats_per_token": 1.8702, "rows": 40}
SCORE |= {"copies": {"answers": 20, "copied": 7, "expected_copied": 6}}
GENERAL = {
    "language": "ja",
    "bits_per_byte_before": 1.4021,
    "bits_per_byte": 1.4313,
    "passages": 4,
    "bytes": 6000,
}
SAMPLES = [
    {
        "prompt": "Two at eight?",
        "text": " table, 2, 20:00",
        "before": "Sure! I can help.",
        "expected": "table, 2, 8pm",
    },
    {"prompt": "二名で", "text": "予約", "before": HOSTILE, "expected": "予約、二名"},
]


def receipts() -> list[Receipt]:
    def made(label: str, kind: str, facts: dict) -> Receipt:
        spent = cost(1.0, 300)
        return Receipt(key=label, label=label, stage=label, status="done", kind=kind, facts=facts, cost=spent)

    return [
        made("data.read", "examples", {"account": ROWS}),
        made("train.finetune", "adapter", {"training": {"steps": 1, "general": GENERAL}}),
        made("evaluate", "scores", {"bits_per_byte": None, "examples": SCORE, "samples": SAMPLES}),
        made("export", "bundle", {"files": {"adapter": {"bytes": 4_000_000, "runtime": "peft"}}}),
    ]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    text = "".join(json.dumps(receipt.to_dict()) + "\n" for receipt in receipts())
    (tmp_path / "receipts.jsonl").write_text(text, encoding="utf-8")
    row = {
        "stage": "train.finetune",
        "step": 1,
        "seconds": 0.5,
        "loss": 1.2,
        "lr": 0.001,
        "heldout_loss": 1.3,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return Page(make_page(tmp_path))


def test_says_what_the_answers_were_before_and_are_now(page: Page) -> None:
    for words in (
        "Held-out answers 0.421 nats a token 1.870 before training",
        "held-out answers 0.4213 before training 1.8702",
        "answers copied from training 7 of 20, 6 expected",
        "general text (ja), bits per byte 1.4313 before training 1.4021",
        "Nats a token of the answers of 40 rows that were not trained on; lower is better.",
        "What it answers",
        "Two at eight? before training Sure! I can help. now table, 2, 20:00 expected table, 2, 8pm",
        f"二名で before training {HOSTILE} now 予約 expected 予約、二名",
    ):
        assert words in page.text, words


def test_rows_are_counted_as_rows_and_files_without_a_score_have_no_column_for_it(page: Page) -> None:
    assert "What became of the text 400 rows of 420 kept" in page.text
    assert "400 rows, 29.3KiB 20 empty answer" in page.text
    assert "bits per byte" not in page.text.split("Files file")[1].split("What it cost")[0]


def test_the_loss_of_held_out_rows_stands_beside_the_training_loss(page: Page) -> None:
    plots = [json.loads(attrs["data-plot"] or "") for _, attrs in page.tags if "data-plot" in attrs]
    names = {series["name"]: series["points"] for series in plots[0]["series"]}
    assert names["held-out"] == [[names["held-out"][0][0], "1.3", "0.5s"]]


def test_a_single_step_is_a_dot(page: Page) -> None:
    shapes = [str(attrs.get("d")) for tag, attrs in page.tags if tag == "path"]
    assert "1 step ·" in page.text and "1 steps" not in page.text
    assert not any(shape.count("M") == 1 and not set(shape) & set("LHh") for shape in shapes), shapes


def test_the_terminal_says_it_too(tmp_path: Path) -> None:
    shown = io.StringIO()
    run = SimpleNamespace(path=tmp_path, receipts=receipts())
    Console(file=shown, width=160).print(tables.run_view(run))
    assert "0.421 nats a token of held-out answers, 1.870 before training" in shown.getvalue()
    assert "1.431 bits per byte of general text (ja), 1.402 before" in shown.getvalue()
