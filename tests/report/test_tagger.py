"""A tagger on page and screen: every method, the one kept and why, each label, how it is used."""

from __future__ import annotations

from typing import Any

from kogata.core.receipt import Receipt
from kogata.report import sections, tagger
from kogata.report.facts import highlights


def score(f1: float, where: str = "held-out") -> dict[str, Any]:
    label = {"precision": f1, "recall": f1, "f1": f1, "spans": 120}
    made = {"f1": f1, "standard_error": 0.02, "precision": f1 + 0.01, "recall": f1 - 0.01, "macro_f1": f1}
    more = {"token_accuracy": 0.97, "tokens": 4000, "n": 210, "spans": 400, "judged_on": where}
    return {**made, **more, "by_label": {"PER": label, "地名<b>": {**label, "spans": 280}}}


FACTS = {
    "role": "tagger",
    "method": "full",
    "chosen": "6.0 ± 1.5 points of F1 above features on the same rows",
    "methods": {"features": score(0.8), "probe": score(0.75), "full": score(0.86)},
    "left_out": {},
    "confused": [["PER", "–", 12]],
    "loads_in_transformers": True,
    "scheme": "iob2",
    "spans": 1200,
    "unreachable_spans": 3,
    "parameters": 22_000_000,
    "architecture": "bert",
}


def receipts(*, tested: bool = False, exported: bool = True, **more: Any) -> list[Receipt]:
    def receipt(stage: str, kind: str, facts: dict[str, Any]) -> Receipt:
        return Receipt(key="k", label=stage, stage=stage, status="done", kind=kind, facts=facts)

    found = [receipt("train.tag", "model", {**FACTS, **more})]
    if tested:
        found.append(receipt("evaluate", "scores", {"tags": {**score(0.84), "split": "test"}}))
    if exported:
        found.append(receipt("export", "bundle", {"files": {"hf": {"bytes": 9}}}))
    return found


def test_methods_and_labels_stand_in_the_report() -> None:
    found = highlights(receipts())
    rows = sections.quality_rows(found)
    assert [row["name"] for row in rows] == ["features", "probe", "full", "地名<b>", "PER"]
    assert [row["minor"] for row in rows] == [True, True, False, True, True]
    assert rows[2]["value"] == "F1 86.0% ± 2.0%, precision 87.0%, recall 85.0%"
    assert rows[3]["value"].endswith("280 spans")
    notes = " ".join(sections.quality_notes(found))
    assert "Kept: full. 6.0 ± 1.5 points of F1 above features" in notes and "strict IOB2" in notes
    assert "3 of 1,200 marked spans" in notes and "97.0% of 4,000 tokens" in notes and "PER → – (12)" in notes
    assert tagger.best_line(found) == "F1 86.0% ± 2.0% of 400 spans in 210 held-out rows, by full"


def test_rows_that_chose_nothing_come_first() -> None:
    found = highlights(receipts(tested=True))
    assert sections.quality_rows(found)[0]["name"] == "test rows"
    assert tagger.best_line(found) == "F1 84.0% ± 2.0% of 400 spans in 210 test rows"


def test_how_it_is_used() -> None:
    lines = sections.how_to_use("runs/a", highlights(receipts()))
    assert 'tag.load("runs/a")' in lines and 'aggregation_strategy="simple"' in lines
    assert "transformers" not in sections.how_to_use(
        "runs/a", highlights(receipts(loads_in_transformers=False))
    )
    assert "aggregation" not in sections.how_to_use("runs/a", highlights(receipts(scheme="plain")))
    assert "export: {formats: [hf]}" in sections.how_to_use("runs/a", highlights(receipts(exported=False)))
    assert tagger.best_line(highlights([])) is None and tagger.rows(highlights([])) == []
