"""Rows that could not be read: number, field, found, expected, remedy."""

from __future__ import annotations

from collections import Counter

from kogata.core.amounts import counted
from kogata.engine.check._common import SHOWN, Examined, Finding, percent

CHEAP, NEEDS = True, None


def check(examined: Examined) -> list[Finding]:
    """Gives one finding for each reason."""
    found = []
    for reason, count in Counter(problem.reason for problem in examined.problems).most_common():
        rows = [problem for problem in examined.problems if problem.reason == reason]
        found.append(
            Finding(
                check="unreadable",
                name=f"unreadable: {reason}",
                level="problem",
                what=f"{count:,} of {counted(examined.rows, 'row')} ({percent(count, examined.rows)}) "
                f"cannot be used: {reason}",
                remedy=rows[0].remedy,
                count=count,
                rows=[problem.to_dict() for problem in rows[:SHOWN]],
            )
        )
    return found
