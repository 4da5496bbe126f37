"""A classifier on page and screen: every method, the one kept and why, labels mixed up, how it is used."""

from __future__ import annotations

from typing import Any

from kogata.core.receipt import Receipt
from kogata.report import classifier, sections
from kogata.report.facts import highlights


def score(accuracy: float, n: int = 210, where: str = "held-out") -> dict[str, Any]:
    made = {"accuracy": accuracy, "standard_error": 0.02, "macro_f1": accuracy - 0.01}
    return {**made, "n": n, "judged_on": where}


FACTS = {
    "role": "classifier",
    "method": "full",
    "chosen": "2.1 ± 0.9 points more accurate than probe on the same rows",
    "methods": {"ngrams": score(0.8), "probe": score(0.9), "full": score(0.921)},
    "left_out": {"contrastive": "more than 64 rows a label"},
    "confused": [["届かない", "遅い<b>", 7]],
    "loads_in_transformers": True,
    "parameters": 22_000_000,
    "architecture": "bert",
}


def receipt(stage: str, kind: str, facts: dict[str, Any]) -> Receipt:
    return Receipt(key="k", label=stage, stage=stage, status="done", kind=kind, facts=facts)


def receipts(*, tested: bool = False, exported: bool = True, **more: Any) -> list[Receipt]:
    found = [receipt("train.classify", "model", {**FACTS, **more})]
    if tested:
        labels = {**score(0.912, 2000), "split": "test", "confused": []}
        found.append(receipt("evaluate", "scores", {"labels": labels}))
    if exported:
        found.append(receipt("export", "bundle", {"files": {"hf": {"bytes": 9}}}))
    return found


def test_every_method_stands_in_the_report_and_the_kept_one_in_bold() -> None:
    found = highlights(receipts())
    rows = sections.quality_rows(found)
    assert [(row["name"], row["minor"]) for row in rows] == [
        ("ngrams", True),
        ("probe", True),
        ("full", False),
    ]
    assert rows[2]["value"] == "92.1% ± 2.0%, macro-F1 0.911" and rows[2]["bar"]
    notes = " ".join(sections.quality_notes(found))
    assert "Kept: full. 2.1 ± 0.9 points more accurate than probe" in notes
    assert "Not tried: contrastive, more than 64 rows a label." in notes and "届かない → 遅い<b> (7)" in notes
    assert classifier.best_line(found) == "92.1% ± 2.0% of 210 held-out rows right, by full"


def test_rows_that_chose_nothing_come_first() -> None:
    found = highlights(receipts(tested=True))
    assert sections.quality_rows(found)[0]["name"] == "test rows right"
    assert classifier.best_line(found) == "91.2% ± 2.0% of 2,000 test rows right"


def test_how_it_is_used() -> None:
    lines = sections.how_to_use("runs/a", highlights(receipts()))
    assert (
        'classify.load("runs/a")' in lines
        and 'model="runs/a/model"' in lines
        and "kogata generate" not in lines
    )
    assert "transformers" not in sections.how_to_use(
        "runs/a", highlights(receipts(loads_in_transformers=False))
    )
    assert "export: {formats: [hf]}" in sections.how_to_use("runs/a", highlights(receipts(exported=False)))
    encoder = highlights(receipts(role="encoder", methods=None))
    assert "model.read: {name: runs/a}" in sections.how_to_use("runs/a", encoder)
    assert classifier.best_line(highlights([])) is None and classifier.rows(highlights([])) == []
