"""Draws the plots of docs/images from benchmarks/results, and puts them into the pages that name them.

A page says where a plot stands; between the marks is an image where its result file is there, else nothing:

    <!-- plot: parts -->![...](images/parts.svg)<!-- /plot -->

With --check it changes nothing and returns 1 where a plot or a page is not as the results say.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
MARK = re.compile(r"(<!-- plot: (?P<name>[\w-]+) -->)(.*?)(<!-- /plot -->)", re.S)
COLOURS = ("#3b6ea8", "#c1693c", "#5a9367", "#8a6bb1", "#b0903a", "#888888")
LEFT, WIDE, HIGH, GAP = 230, 420, 18, 10

Bar = tuple[str, list[tuple[str, float]], list[float]]
"""A label, its pieces (name and length, one after the other), and raw values shown as dots."""


def drawn(title: str, unit: str, bars: list[Bar], low: float = 0.0) -> str:
    """Draws horizontal bars on white, so that they read on any page; `low` is where they begin."""
    most = max(
        [sum(length for _, length in pieces) for _, pieces, _ in bars] + [max(d or [0]) for *_, d in bars]
    )
    scale = WIDE / (most - low) if most > low else 0.0
    names = list(dict.fromkeys(name for _, pieces, _ in bars for name, _ in pieces))
    legend = len(names) > 1
    top = 34 + (20 * -(-len(names) // 4) if legend else 0)
    height = top + len(bars) * (HIGH + GAP) + 8
    parts = [f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>']
    for at, name in enumerate(names if legend else []):
        x, y = 10 + 180 * (at % 4), 30 + 20 * (at // 4)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[at % 6]}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 11}">{escape(name)}</text>')
    for row, (label, pieces, dots) in enumerate(bars):
        y, x = top + row * (HIGH + GAP), float(LEFT)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        for name, value in pieces:
            length = max(0.0, value - low)
            colour = COLOURS[names.index(name) % 6]
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{length * scale:.1f}" height="{HIGH}" fill="{colour}"/>'
            )
            x += length * scale
        for dot in dots:
            parts.append(
                f'<circle cx="{LEFT + (dot - low) * scale:.1f}" cy="{y + HIGH / 2}" r="2.5" fill="#222"/>'
            )
        whole = sum(length for _, length in pieces)
        end = max([x, *(LEFT + (dot - low) * scale for dot in dots)])
        parts.append(f'<text x="{end + 8:.1f}" y="{y + 14}">{whole:.3g} {escape(unit)}</text>')
    size = f'viewBox="0 0 {LEFT + WIDE + 110} {height}" width="{LEFT + WIDE + 110}" height="{height}"'
    style = 'font-family="sans-serif" font-size="13" fill="#222"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}{"".join(parts)}</svg>\n'


def plain(label: str, values: list[float]) -> Bar:
    """A bar of the median with its raw values."""
    return label, [("", statistics.median(values))], values


def parts_plot() -> str:
    """Where the time of a step goes."""
    order = ("products", "attention", "head", "kernels", "optimiser", "rest")
    bars: list[Bar] = []
    for shape, kinds in read("parts")["shapes"].items():
        for kind, found in kinds.items():
            medians = found["median_seconds"]
            pieces = [(name, 1000 * max(0.0, medians[name])) for name in order]
            bars.append((f"{shape}, {kind}", pieces, []))
    return drawn("A training step of 2,048 tokens, its parts", "ms", bars)


def compile_plot() -> str:
    """Plain torch, kernels, torch.compile."""
    bars = [
        plain(f"{shape}, {way}", [1000 * value for value in values])
        for shape, found in read("compile")["shapes"].items()
        for way, values in found["seconds"].items()
    ]
    return drawn("A training step, three ways of computing it", "ms", bars)


def steps_plot() -> str:
    """Windows against full attention."""
    bars = [
        plain(f"{int(length):,} tokens, {name}, {form}", values)
        for form in ("fp32", "bf16")
        for length, found in read("long")["steps"].get(form, {"lengths": {}})["lengths"].items()
        for name, values in found["seconds"].items()
    ]
    return drawn("A training step by length: full attention, and 7 windows in 8 layers", "s", bars)


def cache_plot() -> str:
    """The decode cache by pattern."""
    found = read("long")["cache"]
    bars = [plain(name, [size / 2**20]) for name, size in found["bytes"].items()]
    return drawn(f"Decode cache after {found['length']:,} tokens, 8 layers x 256", "MiB", bars)


def recall_plot() -> str:
    """Associative recall by pattern."""
    found = read("long")["recall"]
    rows = {**found["with_full"], **found["without"]}
    return drawn("Recall of far pairs, 1 is all", "", [plain(n, [row["recall"]]) for n, row in rows.items()])


def sharing_plot() -> str:
    """Bits per byte at equal training time by way of sharing."""
    arms = read("sharing")["arms"]
    low = math.floor(20 * min(row["bits_per_byte"] for rows in arms.values() for row in rows)) / 20 - 0.05
    bars = [
        plain(f"{name}, {rows[0]['parameters'] / 1e6:.1f} M weights", [row["bits_per_byte"] for row in rows])
        for name, rows in arms.items()
    ]
    return drawn(f"Bits per byte at equal training time; bars begin at {low:.2f}", "", bars, low)


PLOTS: dict[str, tuple[Callable[[], str], str, str]] = {
    "parts": (parts_plot, "parts.json", "Parts of a training step"),
    "compile": (compile_plot, "compile.json", "Time of a step: plain torch, kernels, torch.compile"),
    "long-steps": (steps_plot, "long.json:steps", "Time of a step by length and pattern"),
    "long-cache": (cache_plot, "long.json:cache", "Decode cache by pattern"),
    "long-recall": (recall_plot, "long.json:recall", "Recall by pattern"),
    "sharing": (sharing_plot, "sharing.json", "Bits per byte by way of sharing"),
}
"""What draws it, the result it needs (and the part of it), and what the image says to who cannot see it."""


def read(name: str) -> dict[str, Any]:
    """Reads a result file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def there(source: str) -> bool:
    """Says whether a result, or a part of one, has been measured."""
    name, _, part = source.partition(":")
    path = RESULTS / name
    return path.exists() and (not part or part in json.loads(path.read_text(encoding="utf-8")))


def pages() -> Iterator[Path]:
    """Yields the pages that may hold plots."""
    yield from sorted((ROOT / "docs").glob("*.md"))


def main(arguments: list[str]) -> int:
    """Draws and fills in; gives 1 where something is wrong."""
    check, wrong = "--check" in arguments, 0

    def put(path: Path, text: str) -> None:
        nonlocal wrong
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        print(f"{path.relative_to(ROOT)} is not as the results say")
        if check:
            wrong += 1
        else:
            path.write_text(text, encoding="utf-8")

    def filled(match: re.Match[str]) -> str:
        nonlocal wrong
        if match["name"] not in PLOTS:
            print(f"there is no plot {match['name']!r}", file=sys.stderr)
            wrong += 1
            return match[0]
        _, source, says = PLOTS[match["name"]]
        image = f"![{says}](images/{match['name']}.svg)" if there(source) else ""
        return f"{match[1]}{image}{match[4]}"

    for name, (draw, source, _) in PLOTS.items():
        if there(source):
            put(IMAGES / f"{name}.svg", draw())
    for page in pages():
        text = page.read_text(encoding="utf-8")
        put(page, MARK.sub(filled, text))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
