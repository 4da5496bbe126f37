"""The page on data: what each step kept and why, and what training saw when; hostile names stay text."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fabricated_run import HOSTILE, metrics, receipts, write_run

from kogata.report.funnel import funnel_rows
from kogata.report.page import make_page
from kogata.report.plots import Axis
from kogata.report.seen import seen_notes, seen_plots

SELECT = {
    "read": 1589,
    "read_bytes": 9_640_112,
    "kept": 400,
    "kept_bytes": 2_892_034,
    "reasons": {"not_among_the_best_by_classifier": 1189},
    "reason_bytes": {"not_among_the_best_by_classifier": 6_748_078},
    "examples": {},
    "extra": {
        "method": "classifier",
        "kept_share": 0.3,
        "target": {"documents": 57, "characters": 81_000, "held_out_left_out": 2},
        "trial": {
            "tokens": 400_000,
            "difference": {"mean": -0.0612, "low": -0.0701, "high": -0.0523, "pairs": 3},
            "verdict": "better",
        },
    },
}
MIXTURE = {
    "novels": {"size": 9, "weight": 0.75, "epochs": 0.4, "ran_out": False},
    "物語": {"size": 3, "weight": 0.25, "epochs": 4.0, "ran_out": True},
}


def text_of(page: str) -> str:
    """Gives a page's text, without marks, styles and scripts."""
    bare = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", bare)).split())


def with_facts(stage: str, facts: dict[str, Any], **more: Any) -> list[Any]:
    return [replace(one, facts=facts, **more) if one.stage == stage else one for one in receipts()]


def test_the_funnel_tells_bytes_and_tokens_of_every_step_and_reason() -> None:
    rows, summary = funnel_rows(receipts())
    assert [row["label"] for row in rows][-2:] == ["data.dedup", "tokenizer.encode"]
    assert "1,585 documents, 9.17MiB, about 3.15M tokens" in [row["kept"] for row in rows]
    assert rows[-1]["kept"] == "1,585 documents, 3.15M tokens to train on" and "98.0%" in summary
    texts = [drop["text"] for row in rows for drop in row["drops"]]
    assert "3 copy of heldout, 21.6KiB, about 7.24k tokens" in texts


def test_a_choice_and_its_trial_are_told_and_what_was_tried_is_no_step_of_its_own() -> None:
    given = with_facts("data.dedup", {"accounts": {"data.select": SELECT}})
    tried = replace(given[0], label="trial-random", parent="k", facts={"accounts": {"trial-random": SELECT}})
    rows, _ = funnel_rows([tried, *given])
    assert "trial-random" not in [row["label"] for row in rows]
    (notes,) = [row["notes"] for row in rows if row["label"] == "data.select"]
    assert notes[0] == (
        "chosen by classifier, 30.0% of the bytes, like 57 target documents, "
        "2 of the target left out: they are held out"
    )
    assert "-0.0612 [-0.0701, -0.0523] bits per byte against chance, better" in notes[1]
    assert "tried on 3 pairs of small models, 400k tokens each" in notes[1]


def test_a_mixture_groups_of_duplicates_and_what_training_saw_are_told() -> None:
    trials = {"mixtures": [[0.5, 0.5]] * 24, "predicted": 1.71, "predicted_by_size": 1.94, "error": 0.02}
    account = {
        "kept": 5,
        "kept_bytes": 500,
        "read_bytes": 900,
        "extra": {
            "clusters": {
                "clusters": 12,
                "largest": 7,
                "shown": [
                    {"kept": "a.warc.gz:3", "dropped": 6, "ids": ["b:1", "<b>頁</b>", "b:9"]},
                    {"kept": "c", "dropped": 1, "ids": ["d"]},
                ],
            },
            "trials": {**trials, "kept_by_size": False},
        },
    }
    given = with_facts("data.dedup", {"accounts": {"data.dedup": account}, "mixture": MIXTURE})
    training = {"training": {"tokens": 4_833_280, "epochs": 1.534}}
    given = [replace(one, facts=one.facts | training) if one.kind == "model" else one for one in given]
    rows, _ = funnel_rows(given)
    (notes,) = [row["notes"] for row in rows if row["label"] == "data.dedup"]
    assert notes == [
        "12 groups of duplicates, the largest of 7",
        "a.warc.gz:3 stays for 6 others: b:1, <b>頁</b>, b:9, …",
        "c stays for 1 other: d",
        "24 small models tried mixtures: 1.940 to 1.710 bits per byte, ±0.020; weights learned from them",
        "novels: weight 75.0%, 40% of it",
        "物語: weight 25.0%, 4 times, it has run out",
    ]
    assert (
        rows[-1]["label"] == "train.pretrain" and "4.83M tokens seen, the text 1.53 times" in rows[-1]["kept"]
    )


def test_what_training_saw_is_drawn(tmp_path: Path) -> None:
    rows = metrics(steps=200)
    for row in rows:
        part = row["step"] / 200
        row |= {"mixture": {"novels": 0.7 - 0.4 * part, HOSTILE: 0.3 + 0.4 * part}}
        row |= {
            "difficulty": part,
            "context": 64 if part < 0.5 else 128,
            "pruned": 0.2,
            "weight_deviation": 0.4,
        }
    page = text_of(make_page(write_run(tmp_path / "run", rows=rows)))
    for words in (
        "What it saw, and when",
        "Share of each source",
        "Difficulty: 0",
        "Tokens of a window",
        HOSTILE,
    ):
        assert words in page, words
    assert "Left out of the epoch" in page and "rows' weights" in page
    plain = text_of(make_page(write_run(tmp_path / "plain")))
    assert "What it saw, and when" not in plain


def test_many_sources_are_drawn_together_and_broken_rows_left_out() -> None:
    x = Axis(name="step")
    rows: list[dict[str, Any]] = [
        {"step": step, "mixture": {f"s{at}": (at + 1) / 36 for at in range(8)}} for step in range(50)
    ]
    (plot,) = seen_plots(
        [*rows, {"step": None, "mixture": {"s0": 1}}, {"step": 3, "mixture": None}], "step", x
    )
    assert "3 others" in plot and ">s7<" in plot and ">s2<" not in plot
    assert seen_plots([{"step": 1, "loss": 3.0}], "step", x) == []


def test_facts_of_the_whole_are_told() -> None:
    notes = seen_notes(
        {
            "source_epochs": {"novels": 0.5, "物語": 4.0},
            "ran_out": ["物語"],
            "seen_share": 0.63,
            "epochs_begun": 5,
            "pieces": {"32": 1200, "64": 300},
        }
    )
    told = " ".join(notes)
    for words in (
        "novels 0.5, 物語 4",
        "gave more: 物語",
        "63% of the text",
        "5 epochs begun",
        "1,200 of 32, 300 of 64",
    ):
        assert words in told, words
    assert seen_notes({"steps": 10, "ran_out": []}) == []
