"""data.read: what users give it, and what it says when that will not do."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from kogata.core.artifact import Document
from kogata.core.errors import DataError, EnvironmentProblem
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine.text import seal_documents
from kogata.stages.data.read import Read

ROOT = Path(__file__).resolve().parents[3]
NOVELS = ROOT / "examples" / "data"
LINE = "ある日の暮方の事である。一人の下人が、羅生門の下で雨やみを待っていた。"


def read(**settings: Any) -> tuple[list[Document], Account]:
    account = Account()
    return list(Read.model_validate(settings).each((), account)), account


def story(number: int, lines: int = 30) -> str:
    return "\n".join(f"{LINE}{number}の{line}" for line in range(lines)) + "\n"


def folder_of(folder: Path, count: int, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:03}.txt").write_text(story(number, **more), encoding="cp932")
    return folder


def test_cp932_files_become_a_corpus_with_heldout(tmp_path: Path) -> None:
    found, account = read(path=str(folder_of(tmp_path / "in", 300)))
    assert account.read == 300 and account.kept == len(found) == 300 and not account.reasons
    assert account.kept_bytes == sum(len(story(number).encode()) for number in range(300))
    assert {document.text for document in found} == {story(number) for number in range(300)}
    assert 3 <= sum(document.split == "heldout" for document in found) <= 9


def test_paths_are_relative_to_the_recipe_but_hub_names_are_not(tmp_path: Path) -> None:
    settings = {"path": ["a.txt", "hub:owner/name"], "heldout": "b/*.txt", "test": 0.1}
    stage = Read.model_validate(settings, context={"folder": tmp_path})
    assert stage.path == [str(tmp_path / "a.txt"), "hub:owner/name"]
    assert stage.heldout == str(tmp_path / "b/*.txt") and stage.test == 0.1


def test_named_heldout_comes_first_and_is_not_trained_on(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", 6)
    found, account = read(
        path=str(folder), heldout=str(folder / "003.txt"), test=[str(folder / "00[45].txt")]
    )
    assert [(document.id, document.split) for document in found] == [
        ("004.txt", "test"), ("005.txt", "test"), ("003.txt", "heldout"),
        ("000.txt", "train"), ("001.txt", "train"), ("002.txt", "train"),
    ]  # fmt: skip
    assert account.extra == {"files_left_out": 3}


def test_files_of_one_name_keep_apart(tmp_path: Path) -> None:
    paths = [str(folder_of(tmp_path / name, 1) / "000.txt") for name in ("one", "two")]
    found, _ = read(path=paths, heldout=0)
    assert len(found) == 2


def test_tail_and_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(story(1, 500), encoding="euc_jp")
    found, _ = read(path=str(path), heldout={"tail": 0.1})
    assert [document.split for document in found] == ["heldout", "train"]
    assert found[1].text + found[0].text == story(1, 500)
    found, _ = read(path=str(path), heldout=0)
    assert [document.split for document in found] == ["train"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": []}, "empty list"),
        ({"path": "a.txt", "heldout": 2}, "a share is a number from 0 to 0.5"),
        ({"path": "a.txt", "heldout": -0.1}, "a share is a number from 0 to 0.5"),
        ({"path": "a.txt", "heldout": "10%"}, "a share is a number from 0 to 0.5"),
        ({"path": "a.txt", "heldout": {"tail": 0.9}}, "less than or equal to 0.5"),
        ({"path": "a.txt", "encoding": "utf-9"}, "unknown encoding 'utf-9'"),
        ({"path": "a.txt", "columns": {"prompts": "x"}}, "'text', 'id', 'prompt'"),
        ({"path": "a.txt", "kind": "corpus", "columns": {"prompt": "x"}}, "no meaning for a corpus"),
        ({"path": "a.csv", "kind": "examples", "heldout": {"tail": 0.1}}, "a tail is of text"),
        ({"path": "a.txt", "split_on": ""}, "at least 1 character"),
        ({"path": "a.txt", "text_column": "x"}, "text_column"),
    ],
)
def test_settings_that_will_not_do(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Read.model_validate(settings)


def test_an_empty_corpus_stops_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b" \n\n")
    (tmp_path / "c.txt").write_bytes(b"%PDF-1.7")
    with pytest.raises(DataError) as caught:
        read(path=str(tmp_path))
    assert str(caught.value) == "\n".join(
        [
            "an empty corpus: nothing to train on",
            f"  at: {tmp_path}",
            "  found: 2 × empty, first a.txt; 1 × binary file, first c.txt (a PDF)",
            "  expected: at least one document with text",
            "  remedy: give files with text in them; the reasons above say what was left out",
        ]
    )


def test_a_corpus_too_small_for_heldout_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINE, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(path=str(tmp_path / "a.txt"))
    assert str(caught.value) == "\n".join(
        [
            "the corpus is too small to hold some of it out",
            f"  at: {tmp_path / 'a.txt'}",
            "  found: 1 document, 105 bytes, 35 characters",
            "  expected: at least 4000 characters, so that heldout get 1000 each",
            "  remedy: give more text, or name another file (heldout: other.txt), or go without (heldout: 0)",
        ]
    )


def test_missing_and_binary_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file, folder or pattern"):
        read(path=str(tmp_path / "nothing.txt"))
    (tmp_path / "a.txt").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(DataError) as caught:
        read(path=str(tmp_path / "a.txt"))
    assert str(caught.value) == "\n".join(
        [
            "this is not a text file",
            f"  at: {tmp_path / 'a.txt'}",
            "  found: a GGUF model",
            "  expected: text (txt, md, jsonl, csv, tsv) or parquet, plain or as .gz or .zst",
            "  remedy: turn it into text first, or leave it out of the path",
        ]
    )


def test_hub_names_need_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kogata.engine.hub.find_spec", lambda name: None)
    for call in (lambda: read(path="hub:owner/name"), lambda: forecast(path="hub:owner/name")):
        with pytest.raises(EnvironmentProblem) as caught:
            call()
        assert "pip install" in str(caught.value.remedy)


def test_hub_names_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    fake = ModuleType("datasets")

    def load_dataset(name: str, **more: Any) -> Any:
        asked.update(more, name=name)
        return iter([{"text": story(number), "n": number} for number in range(300)])

    def load_dataset_builder(name: str, **more: Any) -> Any:
        part = SimpleNamespace(num_examples=300, num_bytes=900_000)
        return SimpleNamespace(info=SimpleNamespace(splits={"all": part}))

    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake.load_dataset_builder = load_dataset_builder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("kogata.engine.hub.find_spec", lambda name: object())
    found, account = read(path="hub:owner/name@abc123:all")
    assert len(found) == account.read == 300
    assert asked == {"name": "owner/name", "revision": "abc123", "split": "all", "streaming": True}
    assert forecast(path="hub:owner/name@abc123:all").facts["splits"]["train"]["documents"] == 294


def forecast(**settings: Any) -> Any:
    stage = Read.model_validate(settings)
    return stage.forecast({}, Machine(cores=2), Share())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_the_forecast_has_the_shape_of_the_facts_and_is_near(tmp_path: Path, kind: str, packed: bool) -> None:
    stories = [story(number, 40) for number in range(300)]
    if kind == "txt":
        files = {f"{number:03}.txt": text.encode("cp932") for number, text in enumerate(stories)}
    else:
        rows = [json.dumps({"題": "話", "本文": text}, ensure_ascii=False) for text in stories]
        files = {"a.jsonl": "\n".join(rows).encode()}
    for name, data in files.items():
        path = tmp_path / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)
    told = forecast(path=str(tmp_path)).facts
    out = tmp_path / "out"
    out.mkdir()
    real = seal_documents(Read(path=str(tmp_path)).each((), Account()), out)
    assert told["language_hint"] == real["language_hint"] == "ja"
    assert list(told["splits"]) == list(real["splits"]) == ["train", "heldout"]
    for name, numbers in real["splits"]["train"].items():
        assert told["splits"]["train"][name] == pytest.approx(numbers, rel=0.1), name
    assert set(told["splits"]["heldout"]) == set(real["splits"]["heldout"])


def test_the_forecast_refuses_what_reading_would(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,body_html,title\n1,<p>text</p>,t\n", encoding="utf-8")
    with pytest.raises(DataError, match="which column holds the text"):
        forecast(path=str(path))
    with pytest.raises(DataError, match="no such file"):
        forecast(path=str(tmp_path / "nothing"))


def test_the_examples_are_read_whole() -> None:
    found, account = read(
        path=str(NOVELS / "novels" / "*.txt.gz"), heldout=str(NOVELS / "novels-heldout" / "*.gz")
    )
    assert not account.reasons and not account.extra
    assert {document.split for document in found} == {"heldout", "train"}
    found, account = read(path=str(NOVELS / "aozora"), heldout=str(NOVELS / "aozora-heldout"))
    assert not account.reasons and not account.extra
