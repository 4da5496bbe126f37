"""What page and screen say of a classifier: each method's score, which was kept and why, what is mixed up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogata.report.plots import bar


def said(score: Mapping[str, Any]) -> str:
    """Writes a share of rows right with its standard error."""
    return f"{score['accuracy']:.1%} ± {score['standard_error']:.1%}"


def kept_score(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Gives the score of the method that was kept; None where a run made no classifier."""
    facts = found["classifier"]
    return facts["methods"][facts["method"]] if facts else None


def best_line(found: Mapping[str, Any]) -> str | None:
    """Says in one line how good the classifier is; None where a run made none."""
    facts, scored = found["classifier"], found["labels"]
    if scored:
        return f"{said(scored)} of {scored['n']:,} {scored['split']} rows right"
    if facts is None:
        return None
    score = kept_score(found) or {}
    return f"{said(score)} of {score['n']:,} {score['judged_on']} rows right, by {facts['method']}"


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the quality table's rows: the test, then every method that took part, the kept one in bold."""
    made: list[dict[str, Any]] = []
    scored, facts = found["labels"], found["classifier"]
    if scored:
        made.append(_row(f"{scored['split']} rows right", scored, minor=False))
    for name, score in (facts["methods"] if facts else {}).items():
        made.append(_row(name, score, minor=name != facts["method"]))
    return made


def _row(name: str, score: Mapping[str, Any], *, minor: bool) -> dict[str, Any]:
    value = f"{said(score)}, macro-F1 {score['macro_f1']:.3f}"
    return {"name": name, "value": value, "minor": minor, "bar": bar(score["accuracy"], 1.0, style="c")}


def notes(found: Mapping[str, Any]) -> list[str]:
    """Says what the methods were judged on, why one was kept, and which labels are mixed up."""
    scored, facts = found["labels"], found["classifier"]
    lines = []
    if facts:
        score = facts["methods"][facts["method"]]
        lines.append(f"Kept: {facts['method']}. {facts['chosen'][:1].upper()}{facts['chosen'][1:]}.")
        lines.append(f"Judged on {score['n']:,} {score['judged_on']} rows; ± is the standard error.")
        lines += [f"Not tried: {name}, {why}." for name, why in (facts.get("left_out") or {}).items()]
    confused = (scored or facts or {}).get("confused") or []
    if confused:
        pairs = ", ".join(f"{true} → {guessed} ({count})" for true, guessed, count in confused)
        lines.append(f"Most often taken for another: {pairs}.")
    return lines


def how_to_use(place: str, files: Mapping[str, Any], facts: Mapping[str, Any] | None) -> str:
    """Gives the lines that use a classifier, or an encoder where there are no facts of one."""
    if "hf" not in files:
        return "# add  - export: {formats: [hf]}  to the recipe, and run it again"
    if facts is None:
        stages = [f"- model.read: {{name: {place}}}", "- train.classify: {}"]
        return "\n".join(["# a recipe that classifies with it", *stages])
    lines = ["from kogata.engine import classify", f'classifier = classify.load("{place}")']
    lines += ['print(classify.predict(classifier, ["…"]))']
    if facts.get("loads_in_transformers"):
        lines += ["", "# without Kogata", "from transformers import pipeline"]
        lines += [f'print(pipeline("text-classification", model="{place}/model")("…"))']
    return "\n".join(lines)
