"""Writes the measured figures into README, docs and cards, and says with --check whether they are right.

No figure is typed by hand. A page names where it comes from, in the result files of benchmarks/results:

    <!-- figure: novels.json:median(arms.kogata.seeds.*.bits_per_byte):.3f -->1.752<!-- /figure -->

In Python sources, where a comment cannot hide, the source follows the figure and is read along with it:

    1.752 [novels.json:median(arms.kogata.seeds.*.bits_per_byte):.3f]

An expression is a dotted path (`*` for every item, a number for one of a list), a function of paths
(median, mean, min, max, sum, count), a number, or two of these with + - * or / between, spaced.
A format is Python's (`.2f`, `.0%`, `,`), or one of: text, seconds, bytes, count.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

_REFERENCE = r"(?P<file>[\w./-]+\.json):(?P<expression>[^:\]]+):(?P<format>[^\]\s>]+)"
IN_PAGES = re.compile(
    rf"(?P<before><!-- figure: {_REFERENCE} -->)(?P<value>.*?)(?P<after><!-- /figure -->)", re.S
)
IN_SOURCES = re.compile(rf"(?P<before>)(?P<value>\S+)(?P<after>\s+\[{_REFERENCE}\])")

_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
}
_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


class FigureError(Exception):
    """A figure names a file, path or format that is not there."""


def look_up(data: Any, path: str) -> list[Any]:
    """Gives every value a dotted path reaches."""
    found = [data]
    for name in path.split("."):
        inner: list[Any] = []
        for value in found:
            if name == "*":
                inner += value.values() if isinstance(value, dict) else value
            elif isinstance(value, list):
                inner.append(value[int(name)])
            else:
                inner.append(value[name])
        found = inner
    return found


def evaluate(data: Any, expression: str) -> Any:
    """Computes an expression over one result file."""
    for operator, apply in _OPERATORS.items():
        left, spaced, right = expression.rpartition(f" {operator} ")
        if spaced:
            return apply(evaluate(data, left), evaluate(data, right))
    expression = expression.strip()
    if called := re.fullmatch(r"(\w+)\((.+)\)", expression):
        return _FUNCTIONS[called[1]](look_up(data, called[2].strip()))
    if re.fullmatch(r"\d+(\.\d+)?", expression):
        return float(expression)
    values = look_up(data, expression)
    if len(values) != 1:
        raise FigureError(f"{expression} reaches {len(values)} values; say median(…) or another function")
    return values[0]


def write(value: Any, style: str) -> str:
    """Writes a value in a format."""
    if style in {"seconds", "bytes", "count"}:
        sys.path.insert(0, str(ROOT / "src"))
        from kogata.core import amounts

        return getattr(amounts, f"format_{style}")(value)
    return str(value) if style == "text" else format(value, style)


def figure(match: re.Match[str]) -> str:
    """Gives what a marked figure must read.

    Raises:
        FigureError: the file, path or format is not there.
    """
    path = RESULTS / match["file"]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return write(evaluate(data, match["expression"]), match["format"])
    except FileNotFoundError:
        raise FigureError(f"no result file {match['file']} in benchmarks/results") from None
    except (KeyError, IndexError, TypeError, ValueError, statistics.StatisticsError) as error:
        raise FigureError(f"{match['file']}:{match['expression']}:{match['format']}: {error!r}") from error


def places() -> Iterator[tuple[Path, re.Pattern[str]]]:
    """Yields every file that may hold figures, with the pattern that finds them there."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    yield from ((page, IN_PAGES) for page in sorted(pages))
    yield from ((source, IN_SOURCES) for source in sorted((ROOT / "src").rglob("*.py")))


def figures_of(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Yields the figures of a text; what stands in a fenced example or in backquotes is none."""
    fences = [found.span() for found in re.finditer(r"^```.*?^```|`[^`\n]+`", text, re.M | re.S)]
    for match in pattern.finditer(text):
        if not any(start <= match.start() < end for start, end in fences):
            yield match


def main(arguments: list[str]) -> int:
    """Fills the figures in; with --check changes nothing and returns 1 when one is wrong."""
    wrong = 0
    for path, pattern in places():
        text = path.read_text(encoding="utf-8")
        filled, at = "", 0
        for match in figures_of(text, pattern):
            try:
                value = figure(match)
            except FigureError as error:
                print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
                wrong += 1
                continue
            if value != match["value"]:
                print(f"{path.relative_to(ROOT)}: {match['value']!r} must read {value!r}")
                wrong += "--check" in arguments
            filled += text[at : match.start()] + match["before"] + value + match["after"]
            at = match.end()
        filled += text[at:]
        if filled != text and "--check" not in arguments:
            path.write_text(filled, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
