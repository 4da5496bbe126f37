"""Labels: one class only, labels that training never sees, classes with hardly a row."""

from __future__ import annotations

from collections import Counter

from kogata.core.amounts import counted
from kogata.engine.check._common import Examined, Finding, normal, of_rows, shown
from kogata.engine.examples import Example

CHEAP, NEEDS = True, None

FEW = 5
"""Rows of a class in training below which it can hardly be learned."""
MANY_CLASSES = 0.5
"""Share of rows that are a class of their own before the labels are doubted."""


def check(examined: Examined) -> list[Finding]:
    """Looks at rows of texts with labels."""
    labelled = [(split, example) for split, example in examined.examples if example.form == "label"]
    train = Counter(example.fields["label"] for split, example in labelled if split == "train")
    if not labelled or not train:
        return []
    found = []
    if len(train) == 1:
        found.append(
            Finding(
                check="labels",
                name="one class",
                level="problem",
                what="all "
                + of_rows(sum(train.values()), "has", "have", kind="training row")
                + f" one label: {next(iter(train))!r}",
                remedy="give rows of at least two labels, or name another column (columns: {label: …})",
                count=sum(train.values()),
            )
        )
    others = [example for split, example in labelled if split != "train"]
    unseen = [example for example in others if not train[example.fields["label"]]]
    if unseen:
        names = sorted({example.fields["label"] for example in unseen})
        found.append(
            Finding(
                check="labels",
                name="unseen labels",
                level="problem",
                what=of_rows(len(unseen), "has a label", "have labels", kind="held-out row")
                + " that training never sees: "
                f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}",
                remedy="give more rows of these labels, or correct their spelling",
                count=len(unseen),
                rows=shown(unseen),
            )
        )
    found += _spelt_alike(train, labelled)
    rare = sorted((label for label, count in train.items() if count < FEW), key=train.__getitem__)
    if len(rare) > MANY_CLASSES * sum(train.values()):
        found.append(
            Finding(
                check="labels",
                name="nearly as many labels as rows",
                level="warning",
                what=f"{counted(len(train), 'label')} in {counted(sum(train.values()), 'training row')}",
                remedy="is this the column of labels? Name another with columns: {label: …}",
                count=len(train),
            )
        )
    elif rare and len(train) > 1:
        found.append(
            Finding(
                check="labels",
                name="rare labels",
                level="warning",
                what=f"{len(rare):,} of {len(train):,} labels have fewer than {FEW} training rows: "
                + ", ".join(f"{label} ({train[label]})" for label in rare[:5])
                + (" …" if len(rare) > 5 else ""),
                remedy="give more rows of them, or join them",
                count=len(rare),
                numbers={"labels": {label: train[label] for label in rare}},
            )
        )
    return found


def _spelt_alike(train: Counter[str], labelled: list[tuple[str, Example]]) -> list[Finding]:
    """Finds labels that differ only in case, width or white space."""
    alike: dict[str, list[str]] = {}
    for label in sorted(train):
        alike.setdefault(normal(label), []).append(label)
    pairs = [labels for labels in alike.values() if len(labels) > 1]
    if not pairs:
        return []
    names = {label for labels in pairs for label in labels}
    rows = [example for _, example in labelled if example.fields["label"] in names]
    return [
        Finding(
            check="labels",
            name="labels spelt alike",
            level="warning",
            what=f"{len(names):,} labels differ only in case, width or white space: "
            + "; ".join(" / ".join(map(repr, labels)) for labels in pairs[:3]),
            remedy="write each label one way",
            count=len(rows),
            rows=shown(rows),
        )
    ]
