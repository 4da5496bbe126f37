"""The cluster: by Ray the same pages become the same documents; what hangs or dies there is dealt with."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from dedup_bench import corpus_of, data_bench
from web_archives import JAPANESE, PROSE, page

from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import EnvironmentProblem
from kogata.core.registry import registry
from kogata.core.stage import Account
from kogata.engine import pool
from kogata.engine.web.convert import Converter, Outcome
from kogata.engine.web.page import Page
from kogata.runtime import cluster
from kogata.stages.data.dedup import Dedup
from kogata.stages.data.extract import Extract
from kogata.stages.data.filter import Filter
from kogata.stages.data.select import Select

pytest.importorskip("resiliparse")
pytest.importorskip("py3langid")


# Not importorskip: it must be imported by us, for it looks at its environment then.
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


@dataclass(frozen=True, kw_only=True)
class Still(Converter):
    """Stands still on one page and dies on another, once; converts the rest as ever."""

    mark: Path

    def start(self) -> Any:
        step = super().start()

        def stubborn(page: Page) -> Outcome:
            if page.id == "still":
                time.sleep(600)
            if page.id == "dies" and not self.mark.exists():
                self.mark.touch()
                os._exit(9)
            return step(page)

        return stubborn


@with_ray
@pytest.mark.timeout(600)  # it starts six processes of Ray's own, and anew what was killed
def test_ray_makes_the_same_documents_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(pool, "BATCH", 3)
    monkeypatch.setattr(pool, "PATIENCE", 0.5)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    parts: dict[str, Any] = {
        "extractor": "fast",
        "settings": registry.variant("engine.extract", "fast").Settings(),
        "page_seconds": 3.0,
    }
    names = ["a", "b", "dies", "c", "still", "d", "e"]
    pages = [
        Page(id=name, source="x", content=page(f"{name} {PROSE} {PROSE} {JAPANESE}").encode())
        for name in names
    ]
    wanted = [outcome for outcome in pool.through(pages, Converter(**parts), 1)]
    # Other programs, and runs that were killed, may have folders of such a name: ours is the one we made.
    folders: list[Path] = []
    make_folder = tempfile.mkdtemp

    def noted(**settings: Any) -> str:
        folders.append(Path(make_folder(**settings)))
        return str(folders[-1])

    monkeypatch.setattr(cluster.tempfile, "mkdtemp", noted)
    before = dict(os.environ)
    found: list[Outcome] = []
    for outcome in pool.through(pages, Still(**parts, mark=tmp_path / "mark"), 1, cluster.on_ray):
        if not found:
            open_to = {
                connection.laddr.ip.removeprefix("::ffff:")
                for process in psutil.Process().children(recursive=True)
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
        found.append(outcome)
    assert open_to == {"127.0.0.1"}
    assert [outcome.reason for outcome in found] == [None] * 4 + ["takes too long"] + [None] * 2
    del found[4], wanted[4]
    assert found == wanted
    assert {name: os.environ.get(name) for name in before} == before and "RAY_AUTH_TOKEN" not in os.environ
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in " ".join(p.cmdline())]
    assert len(folders) == 1 and not folders[0].exists()


def test_a_folder_into_which_something_still_writes_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    remove = shutil.rmtree
    tries: list[str] = []

    def disturbed(place: str, ignore_errors: bool) -> None:
        tries.append(place)
        if len(tries) > 2:
            remove(place, ignore_errors=ignore_errors)

    monkeypatch.setattr(cluster.shutil, "rmtree", disturbed)
    cluster._remove(str(folder))
    assert not folder.exists() and len(tries) == 3


def test_the_stage_hands_its_batches_to_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text(page(f"One. {PROSE} {PROSE}"), encoding="utf-8")
    bench = data_bench(tmp_path / "bench")
    asked: list[int] = []

    def spread(make: Any, batches: Any, seconds: float, late: Any) -> Any:
        work = make()
        for batch in batches:
            asked.append(len(batch))
            yield work(batch)

    bench.spread = spread
    stage = Extract.model_validate({"path": str(tmp_path / "one.html"), "heldout": 0, "processes": "ray"})
    (document,) = stage.each([], Account(bench=bench))
    alone = Extract.model_validate({"path": str(tmp_path / "one.html"), "heldout": 0, "processes": 1})
    assert [document] == list(alone.each([], Account())) and asked == [1]


@with_ray
@pytest.mark.timeout(600)
def test_ray_filters_finds_duplicates_and_chooses_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    (tmp_path / "pages").mkdir()
    for at in range(40):
        own = " ".join(f"harbour{at // 2} road{at // 2 * word}" for word in range(1, 40))
        text = f"{at}. {PROSE} {own}." if at % 3 else f"{at}番目。{JAPANESE}"
        (tmp_path / "pages" / f"{at:02}.html").write_text(page("short" if at == 5 else text))
    settings = [
        Extract(path=str(tmp_path / "pages"), heldout=0, processes=1),
        Filter.model_validate({"rules": {"c4": {"min_sentences": None}}, "processes": 1}),
        Dedup.model_validate({"methods": [{"minhash": {"threshold": 0.9}}], "processes": 1}),
        Select.model_validate({"method": "prior", "keep": 0.5, "processes": 1}),
    ]

    def made(folder: Path, processes: int | str) -> list[Any]:
        extract, filters, dedup, select = (s.model_copy(update={"processes": processes}) for s in settings)
        found: list[Any] = []
        bench = data_bench(folder / "pages")
        # As the worker does: one cluster for stages that run in one pass, and the next one after it.
        with closing(cluster.Cluster()) as there:
            bench.spread = there.spread
            documents = extract.each([], Account(bench=bench, label="a"))
            account = Account(bench=bench, label="b")
            corpus = corpus_of(folder / "corpus", filters.each(documents, account))
        found.append(account.to_dict())
        with closing(cluster.Cluster()) as there:
            for stage in (dedup, select):
                bench = data_bench(folder / type(stage).__name__)
                bench.spread = there.spread
                found.append(stage.run({"corpus": corpus, "earlier": None}, bench))
                corpus = Artifact(kind=Kind.CORPUS, digest="x", path=bench.out, facts=found[-1])
                found.append({path.name: path.read_bytes() for path in sorted(bench.out.iterdir())})
        return found

    alone = made(tmp_path / "alone", 1)
    assert made(tmp_path / "there", "ray") == alone
    assert alone[0]["reasons"] and alone[1]["splits"]["train"]["documents"] < alone[0]["kept"]
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in " ".join(p.cmdline())]


@with_ray
def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        next(cluster.on_ray(lambda: list, [[1]], 1.0, str))
