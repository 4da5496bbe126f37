"""Copies: the same question and answer again, and one question with several answers."""

from __future__ import annotations

from collections import defaultdict

from kogata.core.amounts import counted
from kogata.engine.check._common import Examined, Finding, of_rows, shown

CHEAP, NEEDS = True, None


def check(examined: Examined) -> list[Finding]:
    """Compares without case, width and white space."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    answers: dict[str, set[str]] = defaultdict(set)
    asked: dict[str, list[int]] = defaultdict(list)
    for number, (question, answer) in enumerate(examined.normal):
        rows[question, answer].append(number)
        if question:
            answers[question].add(answer)
            asked[question].append(number)
    found = []
    total = len(examined.examples)
    copies = [numbers for numbers in rows.values() if len(numbers) > 1]
    if copies:
        surplus = sum(len(numbers) - 1 for numbers in copies)
        found.append(
            Finding(
                check="duplicates",
                name="duplicates",
                level="warning",
                what=of_rows(surplus, "is a copy of another", "are copies of another", whole=total),
                remedy="remove them: what is repeated is learned by heart",
                count=surplus,
                rows=_pairs(examined, copies),
            )
        )
    torn = [question for question, given in answers.items() if len(given) > 1]
    if torn:
        count = sum(len(asked[question]) for question in torn)
        label = {"label": "label", "tags": "marking"}.get(examined.form or "", "answer")
        found.append(
            Finding(
                check="duplicates",
                name="contradictions",
                level="warning",
                what=of_rows(len(torn), "has", "have", kind="question")
                + f" more than one {label} ({counted(count, 'row')})",
                remedy=f"keep the right {label}" if label != "answer" else "keep the better answer",
                count=count,
                rows=_pairs(examined, [asked[question] for question in torn]),
            )
        )
    return found


def _pairs(examined: Examined, groups: list[list[int]]) -> list[dict]:
    rows = []
    for numbers in groups:
        first, *others = [examined.examples[number][1] for number in numbers]
        rows += shown(others[:2], same_as=first.source)
    return rows[:20]
