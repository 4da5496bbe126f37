"""What page and screen say of a tagger: each method's F1, which was kept and why, each label's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogata.report.plots import bar

LABELS_SHOWN = 20


def said(score: Mapping[str, Any]) -> str:
    """Writes the F1 of whole spans with its standard error."""
    return f"F1 {score['f1']:.1%} ± {score['standard_error']:.1%}"


def kept_score(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Gives the score of the method that was kept; None where a run made no tagger."""
    facts = found["tagger"]
    return facts["methods"][facts["method"]] if facts else None


def best_line(found: Mapping[str, Any]) -> str | None:
    """Says in one line how good the tagger is; None where a run made none."""
    facts, scored = found["tagger"], found["tags"]
    if scored:
        return f"{said(scored)} of {scored['spans']:,} spans in {scored['n']:,} {scored['split']} rows"
    score = kept_score(found)
    if facts is None or score is None:
        return None
    where = f"{score['spans']:,} spans in {score['n']:,} {score['judged_on']} rows"
    return f"{said(score)} of {where}, by {facts['method']}"


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the quality table's rows: the test, every method that took part, the kept one's labels."""
    made: list[dict[str, Any]] = []
    scored, facts = found["tags"], found["tagger"]
    if scored:
        made.append(_row(f"{scored['split']} rows", scored, minor=False))
    for name, score in (facts["methods"] if facts else {}).items():
        made.append(_row(name, score, minor=name != facts["method"]))
    best = scored or kept_score(found) or {}
    labels = sorted((best.get("by_label") or {}).items(), key=lambda item: -item[1]["spans"])
    for label, part in labels[:LABELS_SHOWN]:
        value = f"{part['f1']:.0%}, precision {part['precision']:.0%}, recall {part['recall']:.0%}"
        value += f", {part['spans']:,} spans"
        made.append({"name": label, "value": value, "minor": True, "bar": bar(part["f1"], 1.0, style="c")})
    return made


def _row(name: str, score: Mapping[str, Any], *, minor: bool) -> dict[str, Any]:
    value = f"{said(score)}, precision {score['precision']:.1%}, recall {score['recall']:.1%}"
    return {"name": name, "value": value, "minor": minor, "bar": bar(score["f1"], 1.0, style="c")}


def notes(found: Mapping[str, Any]) -> list[str]:
    """Says what was judged and how, why one method was kept, and what goes wrong."""
    scored, facts = found["tags"], found["tagger"]
    lines = []
    best = scored or kept_score(found)
    if facts:
        score = facts["methods"][facts["method"]]
        lines.append(f"Kept: {facts['method']}. {facts['chosen'][:1].upper()}{facts['chosen'][1:]}.")
        lines.append(
            f"Judged on {score['n']:,} {score['judged_on']} rows; ± is the standard error. A span counts "
            "where start, end and label are right (strict IOB2)."
        )
        lines += [f"Not tried: {name}, {why}." for name, why in (facts.get("left_out") or {}).items()]
    if best:
        lines.append(f"{best['token_accuracy']:.1%} of {best['tokens']:,} tokens have the right tag.")
    if facts and facts.get("unreachable_spans"):
        lines.append(
            f"{facts['unreachable_spans']:,} of {facts['spans']:,} marked spans begin or end within a token: "
            "they are never found exactly."
        )
    confused = (facts or {}).get("confused") or []
    if confused:
        pairs = ", ".join(f"{true} → {guessed} ({count})" for true, guessed, count in confused)
        lines.append(f"Most often wrong, marked → found: {pairs}.")
    return lines


def how_to_use(place: str, files: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Gives the lines that use a tagger."""
    if "hf" not in files:
        return "# add  - export: {formats: [hf]}  to the recipe, and run it again"
    lines = ["from kogata.engine import tag", f'tagger = tag.load("{place}")']
    lines += ['print(tag.predict(tagger, ["…"]))']
    if facts.get("loads_in_transformers"):
        lines += ["", "# without Kogata", "from transformers import pipeline"]
        more = "" if facts.get("scheme") == "plain" else ', aggregation_strategy="simple"'
        lines += [f'find = pipeline("token-classification", model="{place}/model"{more})', 'print(find("…"))']
    return "\n".join(lines)
