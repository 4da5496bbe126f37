"""Marked spans: none at all, labels that training never sees, rare ones, one text marked and unmarked."""

from __future__ import annotations

import re
from collections import Counter

from kogata.core.amounts import counted
from kogata.engine.check._common import SHOWN, Examined, Finding, normal, of_rows
from kogata.engine.check.labels import FEW
from kogata.engine.examples import Example
from kogata.engine.tag_rows import OUTSIDE, within_word

CHEAP, NEEDS = True, None

SHORTEST = 2
"""Characters of a span that is looked for elsewhere."""
OFTEN, MOST = 2, 300
"""Times that a text must be marked before it is missed elsewhere, and how many texts are looked for."""

Row = tuple[str, Example]


def check(examined: Examined) -> list[Finding]:
    """Looks at rows of texts with spans, or tokens with tags."""
    rows = [(split, example) for split, example in examined.examples if example.form == "tags"]
    train = Counter(label for split, row in rows if split == "train" for label in _labels(row))
    if not rows:
        return []
    if not train:
        return [
            Finding(
                check="tags",
                name="nothing is marked",
                level="problem",
                what=f"no training row marks anything ({counted(len(rows), 'row')})",
                remedy="give rows with spans, or name another column (columns: {tokens: …, tags: …})",
                count=len(rows),
            )
        ]
    return [*_unseen(rows, train), *_spelt_alike(train), *_rare(train), *_inside(rows), *_unmarked(rows)]


def _labels(example: Example) -> list[str]:
    return [label for _, _, label in example.fields["spans"] if label != OUTSIDE]


def _unseen(rows: list[Row], train: Counter[str]) -> list[Finding]:
    unseen = [row for split, row in rows if split != "train" and any(not train[x] for x in _labels(row))]
    if not unseen:
        return []
    names = sorted({label for row in unseen for label in _labels(row) if not train[label]})
    return [
        Finding(
            check="tags",
            name="unseen labels",
            level="problem",
            what=of_rows(len(unseen), "has a span", "have spans", kind="held-out row")
            + f" with a label that training never sees: {', '.join(names[:5])}"
            + (" …" if len(names) > 5 else ""),
            remedy="give more rows of these labels, or correct their spelling",
            count=len(unseen),
            rows=[
                _shown(row, [span for span in _spans(row) if not train[span[2]]]) for row in unseen[:SHOWN]
            ],
        )
    ]


def _spelt_alike(train: Counter[str]) -> list[Finding]:
    alike: dict[str, list[str]] = {}
    for label in sorted(train):
        alike.setdefault(normal(label), []).append(label)
    pairs = [labels for labels in alike.values() if len(labels) > 1]
    if not pairs:
        return []
    count = sum(train[label] for labels in pairs for label in labels)
    return [
        Finding(
            check="tags",
            name="labels spelt alike",
            level="warning",
            what="labels differ only in case, width or white space: "
            + "; ".join(" / ".join(map(repr, labels)) for labels in pairs[:3]),
            remedy="write each label one way",
            count=count,
        )
    ]


def _rare(train: Counter[str]) -> list[Finding]:
    rare = sorted((label for label, count in train.items() if count < FEW), key=train.__getitem__)
    if not rare:
        return []
    return [
        Finding(
            check="tags",
            name="rare labels",
            level="warning",
            what=f"{len(rare):,} of {len(train):,} labels have fewer than {FEW} training spans: "
            + ", ".join(f"{label} ({train[label]})" for label in rare[:5])
            + (" …" if len(rare) > 5 else ""),
            remedy="give more rows with them, or join them",
            count=len(rare),
            numbers={"labels": {label: train[label] for label in rare}},
        )
    ]


def _inside(rows: list[Row]) -> list[Finding]:
    """Finds spans that begin or end within a word: more often a miscount than meant."""
    found = []
    for _, row in rows:
        text = row.fields["text"]
        some = [span for span in _spans(row) if within_word(text, span[0]) or within_word(text, span[1])]
        if some and "tokens" not in row.fields:
            found.append((row, some))
    if not found:
        return []
    count = sum(len(some) for _, some in found)
    return [
        Finding(
            check="tags",
            name="spans within words",
            level="warning",
            what=f"{counted(count, 'span')} in {counted(len(found), 'row')} begin or end within a word",
            remedy="count again: a word is marked as a whole or not at all",
            count=count,
            rows=[_shown(row, some) for row, some in found[:SHOWN]],
        )
    ]


def _unmarked(rows: list[Row]) -> list[Finding]:
    """Finds texts that are marked in some rows and stand unmarked in others."""
    marked: Counter[str] = Counter()
    for _, row in rows:
        if row.fields.get("plain"):
            return []
        text = row.fields["text"]
        marked.update(text[start:end] for start, end, _ in _spans(row))
    often = [text for text, count in marked.most_common() if count >= OFTEN and len(text) >= SHORTEST][:MOST]
    if not often:
        return []
    pattern = re.compile("|".join(map(re.escape, sorted(often, key=len, reverse=True))))
    found: list[tuple[Example, str]] = []
    missed: Counter[str] = Counter()
    for _, row in rows:
        text, spans = row.fields["text"], _spans(row)
        for match in pattern.finditer(text):
            start, end = match.span()
            touches = any(s < end and start < e for s, e, _ in spans)
            if not touches and not within_word(text, start) and not within_word(text, end):
                missed[match[0]] += 1
                found.append((row, match[0]))
    if not found:
        return []
    said = ", ".join(f"{text} ({marked[text]} times, {count} not)" for text, count in missed.most_common(5))
    return [
        Finding(
            check="tags",
            name="marked here, unmarked there",
            level="warning",
            what=f"{counted(len(missed), 'text')} marked in some rows and not in others: {said}",
            remedy="mark them everywhere, if they mean the same: what is left out teaches not to find it",
            count=len(found),
            rows=[{"source": row.source, "found": f"{text!r}, unmarked"} for row, text in found[:SHOWN]],
        )
    ]


def _spans(example: Example) -> list[tuple[int, int, str]]:
    return [(start, end, label) for start, end, label in example.fields["spans"] if label != OUTSIDE]


def _shown(example: Example, spans: list[tuple[int, int, str]]) -> dict[str, str]:
    text = example.fields["text"]
    said = "; ".join(f"{label}: {text[start:end]!r} ({start}–{end})" for start, end, label in spans[:3])
    return {"source": example.source, "found": said}
