"""Every figure in README, docs and cards is what the result files say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kogata_figures", ROOT / "scripts" / "figures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_recomputed_from_its_result_file(figures: ModuleType) -> None:
    wrong: list[str] = []
    for path, pattern in figures.places():
        for match in figures.figures_of(path.read_text(encoding="utf-8"), pattern):
            must = figures.figure(match)
            if must != match["value"]:
                wrong.append(f"{path.relative_to(ROOT)}: {match['value']!r} must read {must!r}")
    assert not wrong, "run `make figures`\n" + "\n".join(wrong)


def test_no_measured_figure_is_typed_by_hand(figures: ModuleType) -> None:
    measured = re.compile(
        r"\d[\d.,]*\s*(?:bits per byte|bits/byte|tokens/s|tokens per second|GFLOP/s|ビット/バイト)"
        r"|\d[\d.,]*\s*(?:×|x|times)\s*(?:as fast|faster|slower|smaller|less|the speed)|\d[\d.,]*\s*倍"
    )
    wrong: list[str] = []
    for path in [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]:
        if "decisions" in path.parts or path.name == "stages.md":  # the latter is written from the cards
            continue
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        text = figures.IN_PAGES.sub("", text)
        wrong += [f"{path.relative_to(ROOT)}: {found.group(0)!r}" for found in measured.finditer(text)]
    assert not wrong, "mark these as figures (CONTRIBUTING.md)\n" + "\n".join(wrong)


def test_a_result_file_says_where_and_when(figures: ModuleType) -> None:
    for path in sorted(figures.RESULTS.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        missing = {"commit", "machine", "date"} - set(data)
        assert not missing, f"{path.name} lacks {', '.join(sorted(missing))}"


DATA = {"arms": {"ours": {"seeds": [{"s": 1.0}, {"s": 3.0}, {"s": 2.0}]}, "theirs": {"median": 4.0}}, "n": 7}


@pytest.mark.parametrize(
    ("expression", "style", "reads"),
    [
        ("median(arms.ours.seeds.*.s)", ".2f", "2.00"),
        ("arms.theirs.median / median(arms.ours.seeds.*.s)", ".1f", "2.0"),
        ("arms.ours.seeds.1.s", "seconds", "3.00s"),
        ("n", "text", "7"),
        ("n - 2 - 1", ".0f", "4"),
        ("count(arms.ours.seeds.*)", "d", "3"),
    ],
)
def test_expressions(figures: ModuleType, expression: str, style: str, reads: str) -> None:
    assert figures.write(figures.evaluate(DATA, expression), style) == reads


def test_both_forms_are_found(figures: ModuleType) -> None:
    marked = "<!-- figure: a.json:n:d -->7<!-- /figure -->"
    page = f"It took {marked} steps. `{marked}`"
    assert [match["value"] for match in figures.figures_of(page, figures.IN_PAGES)] == ["7"]
    card = "Measured here: 1.75\n    [a.json:median(x.*.s):.2f] bits per byte."
    found = next(figures.figures_of(card, figures.IN_SOURCES))
    assert (found["value"], found["expression"], found["format"]) == ("1.75", "median(x.*.s)", ".2f")


def test_a_figure_without_a_source_is_an_error(figures: ModuleType) -> None:
    match = figures.IN_PAGES.search("<!-- figure: none.json:n:d -->7<!-- /figure -->")
    with pytest.raises(figures.FigureError, match=r"none\.json"):
        figures.figure(match)
