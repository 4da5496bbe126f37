"""Lengths: tokens of the rows against the context; what is longer is not trained on, or read in part."""

from __future__ import annotations

import numpy as np

from kogata.engine.check._common import SHOWN, Examined, Finding, of_rows

CHEAP, NEEDS = False, "tokenizer"

BINS = 8


def check(examined: Examined) -> list[Finding]:
    """Counts rows in eight equal steps up to the longest, or to the context where rows reach beyond half."""
    sizes = examined.lengths
    if not sizes:
        return []
    lengths = np.array([size for _, size in sizes])
    context, longest = examined.context, int(lengths.max())
    top = context if context is not None and longest > context // 2 else longest
    edges = [round(top * step / BINS) for step in range(BINS + 1)]
    # The last step holds its upper end; what lies beyond the context is counted apart.
    counts = np.histogram(lengths, bins=[*edges[:-1], top + 1])[0].tolist()
    middle, high = (int(np.quantile(lengths, share)) for share in (0.5, 0.95))
    beyond = [(example, size) for example, size in sizes if context is not None and size > context]
    found = [
        Finding(
            check="lengths",
            name="lengths",
            level="note",
            what=f"tokens a row: half up to {middle:,}, 95 % up to {high:,}, the longest {longest:,}"
            + (f"; the context is {context:,}" if context else ""),
            numbers={
                "context": context,
                "edges": edges,
                "counts": counts,
                "beyond": len(beyond),
                "median": middle,
                "p95": high,
                "longest": longest,
                "tokens": int(lengths.sum()),
            },
        )
    ]
    # A text, and one whose spans are learned, is read in windows.
    cut = [(example, size) for example, size in beyond if example.form not in ("text", "tags")]
    if cut:
        encoder = examined.renderer is None
        fate = "their ends are not read" if encoder else "no answer is cut, so they are left out"
        found.append(
            Finding(
                check="lengths",
                name="longer than the context",
                level="warning" if encoder else "problem",
                what=of_rows(len(cut), "is", "are", whole=len(sizes))
                + f" longer than the context of {context:,} tokens; {fate}",
                remedy="shorten them, or take a larger context if the model has one",
                count=len(cut),
                rows=[
                    {
                        "source": example.source,
                        "field": "text" if encoder else "prompt and answer",
                        "found": f"{size:,} tokens",
                        "expected": f"at most {context:,}",
                    }
                    for example, size in cut[:SHOWN]
                ],
            )
        )
    return found
