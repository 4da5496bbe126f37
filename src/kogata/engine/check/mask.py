"""What is trained and what is masked: the rows as the model sees them, and rows that cannot be rendered."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kogata.core.amounts import counted
from kogata.engine.chat import Rendered, Unfit
from kogata.engine.check._common import SHOWN, Examined, Finding, percent

CHEAP, NEEDS = False, "renderer"

VIEWED = 3
"""Rows shown with their mask."""
LONGEST_VIEW = 1200
"""Characters of a row that are shown."""


def check(examined: Examined) -> list[Finding]:
    """Renders every row with the model's template."""
    renderer = examined.renderer
    assert renderer is not None
    found: list[Finding] = []
    faults = [(example, rows) for example, rows in examined.rendered if isinstance(rows, Unfit)]
    for reason, count in Counter(fault.reason for _, fault in faults).most_common():
        chosen = [(example, fault) for example, fault in faults if fault.reason == reason]
        found.append(
            Finding(
                check="mask",
                name=f"unfit: {reason}",
                level="problem",
                what=f"{counted(count, 'row')} cannot be trained on: {reason}",
                remedy=chosen[0][1].remedy or "",
                count=count,
                rows=[
                    {
                        "source": example.source,
                        "field": fault.field,
                        "found": fault.found or fault.what,
                        "expected": fault.expected or "",
                    }
                    for example, fault in chosen[:SHOWN]
                ],
            )
        )
    fit = [(example, rows) for example, rows in examined.rendered if not isinstance(rows, Unfit)]
    tokens = sum(len(row.ids) for _, rows in fit for row in rows)
    trained = sum(row.trained for _, rows in fit for row in rows)
    if fit:
        found.append(
            Finding(
                check="mask",
                name="mask",
                level="note" if trained else "problem",
                what=f"{percent(trained, tokens)} of the tokens are trained; {renderer.template.said}",
                numbers={
                    "tokens": tokens,
                    "trained": trained,
                    "template": renderer.template.source,
                    "view": [
                        {"source": example.source, "pieces": pieces(rows[0], renderer.tokenizer)}
                        for example, rows in fit[:VIEWED]
                    ],
                },
            )
        )
    return found


def pieces(row: Rendered, tokenizer: Any) -> list[dict[str, Any]]:
    """Cuts a row into runs of one weight, as text; special tokens are shown."""
    # The first token has no weight because nothing stands before it; it belongs to what follows.
    weights = list(row.weights)
    weights[0] = row.weights[1] if len(row.ids) > 1 and row.weights[1] < 1 else row.weights[0]
    found: list[dict[str, Any]] = []
    start = shown = 0
    for place in range(1, len(row.ids) + 1):
        if place < len(row.ids) and weights[place] == weights[start]:
            continue
        text = tokenizer.decode(row.ids[start:place], skip_special_tokens=False)
        room = LONGEST_VIEW - shown
        found.append({"text": text if len(text) <= room else text[:room] + "…", "weight": weights[start]})
        shown += len(text)
        start = place
        if shown >= LONGEST_VIEW:
            break
    return found
