"""data.extract: pages become documents with address, date and language; what is left out has its reason."""

from __future__ import annotations

import gzip
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dedup_bench import data_bench
from pydantic import ValidationError
from web_archives import JAPANESE, PROSE, page, response

from kogata.core.artifact import Document
from kogata.core.errors import DataError, KogataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine.saved import _read, through_and_saved
from kogata.engine.web.convert import Converter, Outcome
from kogata.engine.web.page import Page
from kogata.stages.data.extract import Extract

pytest.importorskip("fastwarc")
pytest.importorskip("py3langid")
pytest.importorskip("resiliparse")


def text_of(number: int) -> str:
    return f"Page {number} tells of the road to the sea. {PROSE} {PROSE}"


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of English and Japanese pages and two HTML files."""
    folder = tmp_path_factory.mktemp("crawl")
    records = [response(page(text_of(at)), f"http://a.example/{at}") for at in range(30)]
    records += [
        response(
            page(f"{at}番目の頁。{JAPANESE}").replace("©", "(c)").encode("cp932"),
            f"http://b.example/{at}",
            headers="Content-Type: text/html",
        )
        for at in range(10)
    ]
    records.insert(7, response(page("gone"), "http://a.example/gone", status="404 Not Found"))
    records.insert(9, response(page(text_of(0)), "http://a.example/0"))
    records.append(response("<!doctype html><html><body><img src=x></body></html>", "http://a.example/empty"))
    (folder / "crawl.warc.gz").write_bytes(b"".join(gzip.compress(record, mtime=0) for record in records))
    (folder / "one.html").write_text(page(text_of(100)), encoding="utf-8")
    (folder / "二.htm").write_bytes(page(JAPANESE * 2).replace("©", "(c)").encode("euc_jp"))
    return folder


def extracted(**settings: Any) -> tuple[list[Document], Account]:
    account = Account()
    stage = Extract.model_validate({"processes": 1, **settings})
    return list(stage.each([], account)), account


def test_pages_become_documents_with_meta_and_splits(crawl: Path) -> None:
    documents, account = extracted(path=str(crawl), heldout=0.1)
    assert len(documents) == 42 == account.kept and len({document.id for document in documents}) == 42
    assert account.reasons == {"HTTP status 404": 1, "URL seen before": 1, "no main text": 1}
    assert account.read == 45
    by_address = {document.meta.get("url"): document for document in documents}
    english, japanese = by_address["http://a.example/3"], by_address["http://b.example/4"]
    assert english.text.startswith("Page 3 tells") and "Home" not in english.text
    assert english.meta["date"] == "2020-08-08T17:27:41Z" and english.meta["language"] == "en"
    assert japanese.text == f"4番目の頁。{JAPANESE}" and japanese.meta["language"] == "ja"
    assert japanese.source == "crawl.warc.gz"
    (read,) = [document for document in documents if document.id == "二.htm"]
    assert read.text == JAPANESE * 2 and "url" not in read.meta
    assert account.extra["encodings"] == {"utf-8": 31 + 1, "cp932": 10, "euc_jp": 1}
    heldout = [document for document in documents if document.split == "heldout"]
    assert 1 <= len(heldout) <= 8


def test_several_processes_make_the_same_corpus(crawl: Path) -> None:
    one, first = extracted(path=str(crawl))
    two, second = extracted(path=str(crawl), processes=2)
    assert one == two and first.to_dict() == second.to_dict()


def test_languages_are_kept_by_name_and_by_how_sure(crawl: Path) -> None:
    documents, account = extracted(path=str(crawl), heldout=0, languages=["ja"])
    assert len(documents) == 11 and account.reasons["language en"] == 31
    documents, account = extracted(path=str(crawl), heldout=0, languages=["en"], min_confidence=0.0)
    assert len(documents) == 31 and account.reasons["language ja"] == 11
    with pytest.raises(DataError, match="no page to train on") as error:
        extracted(path=str(crawl), heldout=0, languages=["de"])
    assert "language en" in (error.value.found or "")
    with pytest.raises(RecipeError, match="did you mean 'ja'"):
        Extract.model_validate({"path": "x", "languages": ["jp"]})


def test_both_extractors_and_their_settings(crawl: Path) -> None:
    pytest.importorskip("trafilatura")
    path = str(crawl / "one.html")
    for extractor in ("fast", "careful"):
        ((found,), _) = extracted(path=path, heldout=0, extractor=extractor)
        assert found.text.startswith("Page 100 tells") and "Contact" not in found.text
    ((whole,), _) = extracted(path=path, heldout=0, extractor={"fast": {"main_content": False}})
    assert "Contact" in whole.text
    with pytest.raises(ValidationError, match="did you mean 'careful'"):
        Extract.model_validate({"path": "x", "extractor": "carefull"})


def test_each_address_once_unless_asked_otherwise(crawl: Path) -> None:
    documents, account = extracted(path=str(crawl / "crawl.warc.gz"), unique_urls=False, heldout=0)
    assert len(documents) == 41 and "URL seen before" not in account.reasons


def test_held_out_files_are_not_trained_on_and_take_their_addresses_along(
    crawl: Path, tmp_path: Path
) -> None:
    (tmp_path / "judge.warc").write_bytes(
        b"".join(response(page(text_of(at)), f"http://a.example/{at}") for at in range(5))
    )
    (tmp_path / "more.html").write_text(page(text_of(200)), encoding="utf-8")
    given = [str(crawl), str(tmp_path)]
    documents, account = extracted(path=given, heldout=str(tmp_path / "judge.warc"))
    held = [document for document in documents if document.split == "heldout"]
    assert [document.meta["url"] for document in held] == [f"http://a.example/{at}" for at in range(5)]
    assert documents[:5] == held, "before what is trained on, so that copies of them are known"
    train = {document.meta.get("url") for document in documents if document.split == "train"}
    assert not train & {f"http://a.example/{at}" for at in range(5)} and len(documents) == 43
    assert account.reasons["URL seen before"] == 6


def test_files_that_cannot_be_read(crawl: Path, tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(b"nothing of the kind\n" * 50)
    (tmp_path / "b.warc.gz").write_bytes(b"nothing of the kind either\n" * 50)
    (tmp_path / "c.html").write_text(page(text_of(1)), encoding="utf-8")
    documents, account = extracted(path=str(tmp_path), heldout=0)
    assert len(documents) == 1 and account.reasons == {"no WARC archive": 2}
    with pytest.raises(DataError, match="no WARC archive"):
        extracted(path=[str(crawl), str(tmp_path / "b.warc.gz")])
    with pytest.raises(DataError, match="no known format"):
        extracted(path=__file__)
    with pytest.raises(ValidationError, match="empty list"):
        Extract.model_validate({"path": []})


def test_a_process_that_dies_is_an_error_and_not_a_wait(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.engine import pool

    monkeypatch.setattr(pool, "_work", leave)
    with pytest.raises(KogataError, match="of data.extract was killed"):
        extracted(path=str(crawl), processes=2)


def leave(pipe: Any, converter: Any, place: Any) -> None:
    """Ends the process at once, as the system does with one that takes too much memory."""
    import os

    os._exit(9)


def test_the_plan_knows_pages_and_processes(crawl: Path) -> None:
    stage = Extract.model_validate({"path": str(crawl), "heldout": 0.1})
    resolved = stage.resolve({}, Machine(cores=2), Share(memory_bytes=2**32))
    assert isinstance(resolved.stage, Extract) and resolved.stage.processes == 2
    assert resolved.reasons["processes"] == "2: one for each of 2 cores"
    told = resolved.stage.forecast({}, Machine(cores=2), Share())
    documents, _ = extracted(path=str(crawl), heldout=0.1)
    train = [document for document in documents if document.split == "train"]
    assert told.facts["splits"]["train"]["documents"] == pytest.approx(len(train), rel=0.5)
    assert told.facts["language_hint"] == "en" and set(told.facts["splits"]) == {"train", "heldout"}
    small = stage.resolve({}, Machine(cores=64), Share(memory_bytes=700 * 2**20))
    assert small.reasons["processes"] == "2: as many as the memory holds"
    many = stage.resolve({}, Machine(cores=64), Share(memory_bytes=2**36))
    assert many.reasons["processes"] == "8: more would wait for the one that reads"


def test_a_killed_run_goes_on_with_the_shard_it_was_in(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, counted = extracted(path=str(crawl), heldout=0)
    bench = data_bench(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(crawl), str(bench.checkpoints)], timeout=60)
    assert killed.returncode == -9
    converted: list[str] = []
    convert = Converter._convert

    def spied(self: Converter, page: Page, extract: Any) -> Outcome:
        converted.append(page.id)
        return convert(self, page, extract)

    monkeypatch.setattr(Converter, "_convert", spied)
    again, account = resumed(bench, path=str(crawl), heldout=0)
    assert again == whole and account.to_dict() == counted.to_dict()
    assert len(converted) == 43 - 16, "two shards of eight were whole"
    del converted[:]
    assert resumed(bench, path=str(crawl), heldout=0)[0] == whole and not converted
    # Whatever the folder holds, a page is its own.
    other = tmp_path / "other.html"
    other.write_text(page(text_of(300)), encoding="utf-8")
    ((only,), _) = resumed(bench, path=str(other), heldout=0)
    assert only.text.startswith("Page 300") and converted == ["other.html"]


KILLED = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from kogata.core.stage import Account
from kogata.engine import saved
from kogata.stages.data.extract import Extract
saved.SHARD_ITEMS = 8
stage = Extract(path=sys.argv[1], heldout=0, processes=1)
account = Account(bench=SimpleNamespace(checkpoints=Path(sys.argv[2])))
for number, document in enumerate(stage.each([], account), 1):
    if number == 20:
        os.kill(os.getpid(), 9)
"""


def resumed(bench: Any, **settings: Any) -> tuple[list[Document], Account]:
    account = Account(bench=bench)
    return list(Extract.model_validate({"processes": 1, **settings}).each([], account)), account


class Lossy(Converter):
    """Rejects a page whose text no valid UTF-8 holds."""

    def start(self) -> Any:
        text = "あ\n\u2028\ud83d" + "\ude00\udc80"
        return lambda page: Outcome(Document(page.id, text), "undecodable bytes", 3, {"encodings/cp932": 1})


def test_what_is_kept_of_a_rejected_page_is_the_same_to_the_last_surrogate(tmp_path: Path) -> None:
    converter = Lossy(extractor="", settings=None)
    pages = [Page(id=name, source="x", content=b"") for name in "ab"]
    made = [converter.start()(page) for page in pages]
    begun = through_and_saved(pages, converter, 1, tmp_path)
    assert next(begun) == (pages[0], made[0])
    begun.close()
    assert list(through_and_saved(pages, converter, 1, tmp_path)) == list(zip(pages, made, strict=True))
    assert [outcome for number in (0, 1) for _, outcome in _read(tmp_path, number, converter) or ()] == made
    first = tmp_path / "shard-000000.jsonl.zst"
    first.write_bytes(first.read_bytes()[:-9])
    assert list(through_and_saved(pages, converter, 1, tmp_path)) == list(zip(pages, made, strict=True))


def test_the_runner_keeps_shards_where_a_kill_leaves_them(crawl: Path, tmp_path: Path) -> None:
    from kogata.runtime.worker import _run_documents

    bench = data_bench(tmp_path)
    stage = Extract.model_validate({"path": str(crawl), "processes": 1})
    _run_documents([stage], ["a"], {"given": {}}, bench, {}, {})  # type: ignore[arg-type]
    assert [path.name for path in (bench.checkpoints / "pages-train").iterdir()] == ["shard-000000.jsonl.zst"]


class Stubborn(Converter):
    """Stands still on some pages, in the ways extractors do."""

    def start(self) -> Any:
        def step(page: Page) -> Outcome:
            while page.id == "busy":
                try:
                    while True:
                        pass
                except BaseException:  # an extractor that catches everything is interrupted again
                    if page.url != "caught":
                        raise
                    page = replace(page, url="")
            if page.id == "still":
                time.sleep(600)
            return Outcome(Document(page.id, page.id))

        return step


@pytest.mark.parametrize("processes", [1, 2])
def test_a_page_that_never_ends_is_left_out(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.engine import pool

    monkeypatch.setattr(pool, "PATIENCE", 10)
    threads = threading.active_count()
    converter = Stubborn(extractor="", settings=None, page_seconds=0.1)
    names = ["a", "busy", "b", *(["still", "c"] if processes > 1 else []), "e"]
    pages = [Page(id=name, source="x", content=b"", url="caught") for name in names]
    account = Account()
    found = [outcome.settle(account) for outcome in pool.through(pages, converter, processes)]
    assert [document.id for document in found if document] == [
        name for name in names if name not in ("busy", "still")
    ]
    assert account.reasons == {"takes too long": processes}
    assert threading.active_count() == threads and not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
