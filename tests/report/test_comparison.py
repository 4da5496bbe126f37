"""The page of a comparison: every seed, intervals, verdicts, the front, advice that follows the figures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fabricated_comparison import write_comparison
from fabricated_run import HOSTILE

from kogata import api
from kogata.core.errors import RecipeError
from kogata.report import choosing
from kogata.report.choosing import Quality, Variant, front
from kogata.report.comparison import make_comparison
from tests.report.test_page import Page

BITS = Quality.of("bits_per_byte")
assert BITS is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("runs") / "novels-compare")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(make_comparison(folder))


def test_says_what_was_found(page: Page) -> None:
    for words in (
        "novels: compared", "4 variants, 3 paired seeds, equal steps",
        "1.7330 ± 0.0050", "-0.0300 [-0.0325, -0.0275]", "better", "worse", "no difference shown",
        "without data.filter", "−21 %", "−60 %",  # costs against the recipe as it stands
        "Bits per byte against time", "Bits per byte against memory", "Bits per byte against size",
        "Training loss, bits per byte", "A as it stands", "D train.pretrain.model.parameters=1000000",
        "train.pretrain.lr 0.02 0.02 0.01 0.02", "data.filter there left out there there",
        "train.pretrain.model.parameters 4212480 4212480 4212480 1000000", "tokens seen 983k 983k 983k 983k",
        "seed 0 seed 1 seed 2", "1.7348", "58.0%",  # every seed
        "data.read 1 for 12 runs one for all", "data.dedup 2 for 12 runs shared by A, C, D; B",
        "train.pretrain 12 for 12 runs each run its own",
        "modelled: package-share", "Intel(R) Xeon(R)", "lr : 0.02",
    ):  # fmt: skip
        assert words in page.text, words


def test_advises_by_what_counts(page: Page) -> None:
    for words in (
        "quality Take C (train.pretrain.lr=0.01): 1.7030, -0.0300 [-0.0325, -0.0275] bits per byte "
        "against A, better.",
        "time Take D (train.pretrain.model.parameters=1000000) if +0.1590 [+0.1547, +0.1633] bits per byte "
        "against C is a fair price: 1min31s instead of C's 3min49s (−60 %); else stay with C, the best.",
    ):
        assert words in page.text, words


def test_loads_nothing_and_escapes_the_names_of_variants(tmp_path: Path) -> None:
    html = make_comparison(write_comparison(tmp_path / "c", seeds=1, hostile=True))
    page = Page(html)
    assert HOSTILE in page.text
    assert html.count("<script>") == 1 and html.count("</style>") == 1
    links = [str(attrs.get("href")) for tag, attrs in page.tags if tag == "a"]
    assert links == [f"variant-{number}/seed-0/report.html" for number in range(4)]
    assert not re.search(r"(?:https?:)?//\w|url\(|@import|src=", html)
    assert not re.search(r'd="[^"]*(?:nan|inf)', html)
    assert "One seed: the advice follows the figures" in page.text and "one seed: no verdict" in page.text


def test_rows_right_are_told_in_points_and_more_is_better(tmp_path: Path) -> None:
    text = Page(make_comparison(write_comparison(tmp_path / "c", share=True))).text
    assert "Take C (train.pretrain.lr=0.01): 79.7%, +3.0 points [+2.8, +3.2] against A, better." in text
    assert "better: upper left" in text and "Higher is better" in text


def test_report_opens_a_comparison_as_it_opens_a_run(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert api.report(moved) == moved / "report.html"
    html = (moved / "report.html").read_text(encoding="utf-8")
    assert "novels: compared" in html and str(tmp_path) not in html
    assert "novels: compared" not in api.report(moved / "variant-0" / "seed-0").read_text(encoding="utf-8")


def test_stays_a_page_when_its_runs_are_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "comparison.json", tmp_path)
    text = Page(make_comparison(tmp_path)).text
    assert "1.7330 ± 0.0050" in text and "Bits per byte against time" in text
    assert "What was shared" not in text and "What differs" not in text
    (tmp_path / "comparison.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecipeError, match="no comparison"):
        api.report(tmp_path)


def test_costs_alone_where_nothing_was_scored(folder: Path, tmp_path: Path) -> None:
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    for row in found["rows"]:
        for name in ("bits_per_byte", "minimal_pairs"):
            row["measures"].pop(name)
    found.pop("judged_by")
    (tmp_path / "comparison.json").write_text(json.dumps(found), encoding="utf-8")
    text = Page(make_comparison(tmp_path)).text
    assert "Nothing was scored" in text and "takes the least, 1min31s; quality was not scored" in text


def test_the_front_is_what_none_beats_in_both() -> None:
    points = [(3.0, 1.0), (1.0, 2.0), (2.0, 2.5), (2.0, 1.5), (4.0, 1.0)]
    assert front(points, lower=True) == [1, 3, 0]
    assert front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9)], lower=False) == [0, 2]


def variants(*rows: tuple[list[float], list[float]]) -> list[Variant]:
    return [
        Variant(number=number, name=f"v{number}", values={"bits_per_byte": quality, "total_seconds": seconds})
        for number, (quality, seconds) in enumerate(rows)
    ]


def sentence(rows: list[Variant], match: str = "steps") -> str:
    return dict(choosing.advice(rows, BITS, choosing.axes_of(rows, None), match))["time"]


def test_a_cheaper_one_that_is_not_shown_to_be_worse_is_taken() -> None:
    rows = variants(([1.0, 1.2, 1.1], [50.0, 51.0, 52.0]), ([1.01, 1.19, 1.12], [20.0, 21.0, 20.5]))
    told = sentence(rows)
    assert told.startswith(
        "Take B (v1): 20.5s instead of A's 51.0s (−60 %), and not shown to be worse (+0.0067"
    )


def test_neither_a_trifle_nor_an_unsure_saving_decides() -> None:
    trifle = variants(([1.0, 1.2], [50.0, 51.0]), ([1.5, 1.7], [49.5, 50.5]))
    assert "decides nothing here" in sentence(trifle)
    unsure = variants(([1.0, 1.2], [50.0, 51.0]), ([1.5, 1.7], [20.0, 51.0]))
    told = sentence(unsure)
    assert told.startswith("Take A (v0), the best, for its 50.5s: B took 35.5s on average, but the seeds")
    assert "made equal" in sentence(trifle, match="time")
