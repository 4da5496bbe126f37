"""Boilerplate: one answer to many questions, and openings or closings that most answers share."""

from __future__ import annotations

import re
from collections import Counter

from kogata.core.amounts import counted
from kogata.engine.check._common import Examined, Finding, clip, of_rows, percent, shown

CHEAP, NEEDS = True, None

LEAST = 5
"""Questions that get one answer before it is said."""
LEAST_SHARE = 0.01
SHARED = 0.25
"""Share of answers with one opening or closing before it is said."""
SHORTEST = 8
"""Characters of an opening or a closing."""
_SENTENCE = re.compile(r"(?<=[。．！？!?])\s*|(?<=[.])\s+|\n+")


def check(examined: Examined) -> list[Finding]:
    """Looks at answers to different questions; labels are meant to repeat."""
    asked = [
        (number, question, answer)
        for number, (question, answer) in enumerate(examined.normal)
        if question and examined.examples[number][1].form not in ("label", "tags")
    ]
    if not asked:
        return []
    questions: dict[str, set[str]] = {}
    rows: dict[str, list[int]] = {}
    for number, question, answer in asked:
        questions.setdefault(answer, set()).add(question)
        rows.setdefault(answer, []).append(number)
    least = max(LEAST, LEAST_SHARE * len(asked))
    often = [answer for answer, given in questions.items() if len(given) >= least]
    found = []
    if often:
        often.sort(key=lambda answer: -len(rows[answer]))
        count = sum(len(rows[answer]) for answer in often)
        first = examined.examples[rows[often[0]][0]][1]
        found.append(
            Finding(
                check="boilerplate",
                name="repeated answers",
                level="warning",
                what=of_rows(len(often), "is", "are", kind="answer")
                + f" given to many questions ({counted(count, 'row')}, "
                f"{percent(count, len(asked))}); the commonest {len(rows[often[0]]):,} times: "
                f"«{clip(first.answer(), 50)}»",
                remedy="keep a few of each: the model will say them to everything",
                count=count,
                rows=[
                    row | {"times": len(rows[answer])}
                    for answer in often[:20]
                    for row in shown([examined.examples[rows[answer][0]][1]])
                ],
            )
        )
    for place, name in ((0, "opening"), (-1, "closing")):
        tally: Counter[str] = Counter()
        for number, _, _ in asked:
            parts = [part for part in _SENTENCE.split(examined.examples[number][1].answer()) if part.strip()]
            if len(parts) > 1 and len(parts[place].strip()) >= SHORTEST:
                tally[parts[place].strip()] += 1
        for text, count in tally.most_common(1):
            if count >= max(LEAST, SHARED * len(asked)):
                found.append(
                    Finding(
                        check="boilerplate",
                        name=f"common {name}",
                        level="note",
                        what=f"{percent(count, len(asked))} of the answers have one {name}: "
                        f"«{clip(text, 50)}»",
                        remedy="cut it off, unless every answer should have it",
                        count=count,
                        numbers={"text": text},
                    )
                )
    return found
