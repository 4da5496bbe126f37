"""Lengths: tokens of the rows against the context; what is longer is not trained on."""

from __future__ import annotations

import numpy as np

from kogata.engine.chat import Unfit
from kogata.engine.check._common import SHOWN, Examined, Finding, percent

CHEAP, NEEDS_MODEL = False, True

BINS = 8


def check(examined: Examined) -> list[Finding]:
    """Counts rows in eight equal steps up to the context, and those beyond."""
    sizes = [
        (example, sum(len(row.ids) for row in rows) if example.form == "text" else max(len(r.ids) for r in rows))
        for example, rows in examined.rendered
        if not isinstance(rows, Unfit)
    ]
    if not sizes:
        return []
    lengths = np.array([size for _, size in sizes])
    context = examined.context
    top = context or int(lengths.max())
    edges = [round(top * step / BINS) for step in range(BINS + 1)]
    counts = np.histogram(lengths, bins=[*edges[:-1], top + 1])[0].tolist()
    beyond = [(example, size) for example, size in sizes if context is not None and size > context]
    middle, high = (int(np.quantile(lengths, share)) for share in (0.5, 0.95))
    numbers = {
        "context": context,
        "edges": edges,
        "counts": counts,
        "beyond": len(beyond),
        "median": middle,
        "p95": high,
        "longest": int(lengths.max()),
        "tokens": int(lengths.sum()),
    }
    found = [
        Finding(
            check="lengths",
            name="lengths",
            level="note",
            what=f"tokens a row: half up to {middle:,}, 95 % up to {high:,}, the longest {lengths.max():,}"
            + (f"; the context is {context:,}" if context else ""),
            numbers=numbers,
        )
    ]
    cut = [(example, size) for example, size in beyond if example.form != "text"]
    if cut:
        found.append(
            Finding(
                check="lengths",
                name="longer than the context",
                level="problem",
                what=f"{len(cut):,} rows ({percent(len(cut), len(sizes))}) are longer than the context of "
                f"{context:,} tokens; no answer is cut, so they are left out",
                remedy="shorten them, or train with a larger context if the model has one",
                count=len(cut),
                rows=[
                    {
                        "source": example.source,
                        "field": "prompt and answer",
                        "found": f"{size:,} tokens",
                        "expected": f"at most {context:,}",
                    }
                    for example, size in cut[:SHOWN]
                ],
            )
        )
    return found
