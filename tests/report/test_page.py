"""The page of a run: complete, made from the ledger alone, safe with hostile text, loading nothing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fabricated_run import HOSTILE, metrics, write_run

from kogata.core.errors import RecipeError
from kogata.report.page import make_page, write_report

VOID = {"meta", "br", "path", "link", "img"}


class Page(HTMLParser):
    """Collects a page's text and tags, and checks that tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "novels")


def test_shows_everything_a_reader_asks_for(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    for words in (
        "novels", "done",
        "1.731", "bits per byte", "1.7312", "3.6610", "58.4% ± 0.7%", "wh island",  # quality
        "3min42s", "budget 4min", "3min46s with what was reused", "1.16GiB", "budget 4GiB",  # budget
        "3.11–8.43kJ", "modelled: package-share",  # energy
        "4.21M", "qwen3, 6 layers of width 192, context 256",
        "model-q8_0.gguf", "4.67MiB", "llama.cpp, on 64KiB", "+0.0013",  # files
        "train.pretrain", "3min13s", "3min12s", "16.8s", "14.0s", "1.21GiB",  # cost and forecast
        "Loss, bits per byte", "held-out", "Learning rate", "1,179 steps", "46% of the machine",  # training
        "41 undecodable bytes, 1 NUL character, mended in 2 documents",  # what was read
        "31 too short", "12 too many symbols", "3 copy of heldout", "98.0% of the bytes kept",  # funnel
        "吾輩は猫である", "夏目漱石", "むかし、", "おじいさん",
        "4096 keeps 3.05 bytes a token", "model.parameters",  # choices
        "lr : 0.02", "Intel(R) Xeon(R)", "151GFLOP/s", "14–38 W", "torch 2.13.0",  # recipe and machine
        "kogata generate runs/novels", "8 lines of the ledger", "reused", "fused",
    ):  # fmt: skip
        assert words in page.text, words


def test_loads_nothing_and_escapes_what_data_say(run: Path) -> None:
    html = make_page(run)
    page = Page(html)
    assert HOSTILE in page.text
    assert html.count("<script>") == 1 and html.count("</style>") == 1
    assert [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "base")] == []
    assert not any(name in ("src", "href", "action") for _, attrs in page.tags for name in attrs)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search(r"(?:https?:)?//\w|url\(|@import", html)
    assert "default-src 'none'" in html
    assert len(html) < 400_000


def test_is_made_from_the_ledger_alone(run: Path) -> None:
    once = make_page(run)
    (run / "state.json").unlink()
    (run / "report.html").unlink(missing_ok=True)
    assert make_page(run) == once


def test_japanese_text_names_its_language(run: Path) -> None:
    page = Page(make_page(run))
    languages = [attrs.get("lang") for tag, attrs in page.tags if tag == "blockquote"]
    assert languages == [None, "ja", None]


def test_a_failed_run_says_what_failed_and_what_was_not_run(tmp_path: Path) -> None:
    page = Page(make_page(write_run(tmp_path / "run", failed=True)))
    assert "train.pretrain failed the stage passed its memory budget found: 4.3GiB" in page.text
    assert page.text.count("not run") == 2
    assert "Use it" not in page.text


def test_stays_a_page_when_files_are_missing_or_damaged(run: Path) -> None:
    for name in ("metrics.jsonl", "recipe.yaml", "plan.json"):
        (run / name).unlink()
        assert "bits per byte" in Page(make_page(run)).text
    (run / "plan.json").write_text("{", encoding="utf-8")
    (run / "metrics.jsonl").write_text('[1]\nnull\n{"step": null, "loss": "NaN"}\n', encoding="utf-8")
    assert "bits per byte" in Page(make_page(run)).text
    (run / "receipts.jsonl").write_text("", encoding="utf-8")
    assert "unfinished" in Page(make_page(run)).text


def test_numbers_that_are_no_numbers_do_not_break_the_plot(tmp_path: Path) -> None:
    rows = metrics(steps=40)
    rows[3]["loss"] = float("nan")
    rows[5]["loss"] = float("inf")
    rows[7]["loss"] = None
    html = make_page(write_run(tmp_path / "run", rows=rows))
    assert "Loss, bits per byte" in html
    assert not re.search(r'd="[^"]*(?:nan|inf)', html)


def test_steps_repeated_after_a_resume_count_once(tmp_path: Path) -> None:
    rows = metrics(steps=100)
    plain = make_page(write_run(tmp_path / "a", rows=rows))
    twice = make_page(write_run(tmp_path / "b", rows=[*rows[:30], *rows[20:]]))
    plots = re.compile(r'<div class="area".*?</svg>', re.S)
    assert plots.findall(plain) == plots.findall(twice)


def test_two_trainings_have_a_plot_each(tmp_path: Path) -> None:
    rows = [*metrics(steps=60, label="small"), *metrics(steps=60, label="large")]
    page = Page(make_page(write_run(tmp_path / "run", rows=rows)))
    assert "Training · small" in page.text and "Training · large" in page.text


def test_a_run_that_reused_everything_shows_what_it_first_cost(run: Path) -> None:
    lines = (run / "receipts.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    rows = [json.loads(line) for line in lines]
    with (run / "receipts.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
        for row in rows:
            file.write(json.dumps(row | {"status": "reused", "cost": {"seconds": 0.0}}) + "\n")
    page = Page(make_page(run))
    assert "3min46s with what was reused" in page.text
    assert "3min13s" in page.text and "8 lines of the ledger" in page.text


def test_the_folder_moves_with_its_page(run: Path, tmp_path: Path) -> None:
    write_report(run)
    moved = tmp_path / "elsewhere"
    shutil.move(run, moved)
    assert str(tmp_path) not in write_report(moved).read_text(encoding="utf-8")


def test_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a run's folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
