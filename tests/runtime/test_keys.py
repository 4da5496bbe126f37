"""Keys: what they depend on, and what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from kogata.core.artifact import Kind
from kogata.core.registry import registry
from kogata.core.stage import InputPath, Share, Stage
from kogata.runtime import keys


def reached(stage: str) -> set[str]:
    return keys._reached(f"stages.{stage}")


def test_a_change_in_nn_trains_again_and_does_not_tokenise_again() -> None:
    assert "nn.decoder" in reached("train.pretrain")
    assert "nn.optim" in reached("train.pretrain")
    for stage in ("data.read", "data.filter", "data.dedup", "tokenizer.train", "tokenizer.encode"):
        assert not [name for name in reached(stage) if name.startswith("nn.")], stage


def test_variants_in_folders_belong_to_the_code_of_their_stage() -> None:
    assert "engine.export.gguf_q8_0" in reached("export")
    assert "engine.readers.parquet" in reached("data.read")


def test_the_code_of_a_stage_is_the_hash_of_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: keys.code_of(name) for name in ("train.pretrain", "tokenizer.encode")}
    source = keys._source
    monkeypatch.setattr(keys, "_source", lambda name: source(name) + ("\n#" if name == "nn.decoder" else ""))
    keys.code_of.cache_clear()
    try:
        assert keys.code_of("train.pretrain") != before["train.pretrain"]
        assert keys.code_of("tokenizer.encode") == before["tokenizer.encode"]
    finally:
        keys.code_of.cache_clear()


def key(name: str, settings: dict, *, seed: int = 0, world: int = 1, content: dict | None = None) -> str:
    stage = registry.stage(name).model_validate(settings)
    inputs = {slot: "digest" for slot in type(stage).takes}
    clock = {"run": "a"} if stage.clocked(Share(seconds=10.0)) else None
    return keys.key_of(
        name, stage, inputs, seed=seed, world=world, device="cpu", clock=clock, content=content or {}
    )


def test_seed_settings_processes_and_contents() -> None:
    assert key("tokenizer.train", {}) == key("tokenizer.train", {}, seed=1)
    assert key("train.pretrain", {"steps": 5}) != key("train.pretrain", {"steps": 5}, seed=1)
    assert key("train.pretrain", {"steps": 5}) != key("train.pretrain", {"steps": 6})
    assert key("train.pretrain", {"steps": 5}) != key("train.pretrain", {"steps": 5}, world=2)
    assert key("tokenizer.train", {}) == key("tokenizer.train", {}, world=2)
    first, second = ({("path",): digest} for digest in ("a", "b"))
    assert key("data.read", {"path": "x"}, content=first) != key("data.read", {"path": "x"}, content=second)
    assert key("data.read", {"path": "/a/x"}, content=first) == key(
        "data.read", {"path": "/b/x"}, content=first
    )


def test_outside_files_count_by_content(tmp_path: Path) -> None:
    (tmp_path / "小説.txt").write_text("一")
    stage = registry.stage("data.read").model_validate({"path": "小説.txt"}, context={"folder": tmp_path})
    before = keys.outside_content(stage)
    assert set(before) == {("path",)}
    (tmp_path / "小説.txt").write_text("二")
    assert keys.outside_content(stage) != before


def filtering(folder: Path, good: str, tests: object) -> Stage:
    rules = {"classifier": {"positives": good}, "decontaminate": {"against": tests}}
    return registry.stage("data.filter").model_validate({"rules": rules}, context={"folder": folder})


def test_files_named_deep_in_the_settings_count_by_content(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "評価").mkdir(parents=True)
        (tmp_path / place / "good.txt").write_text("good")
        (tmp_path / place / "評価" / "a.txt").write_text("a")
    found = {}
    for place in ("here", "there"):
        stage = filtering(tmp_path / place, "good.txt", ["評価", "good.txt"])
        content = keys.outside_content(stage)
        assert set(content) == {("rules", "classifier", "positives"), ("rules", "decontaminate", "against")}
        found[place] = key("data.filter", stage.model_dump(), content=content)
    assert found["here"] == found["there"], "where the files lie does not count"
    stage = filtering(tmp_path / "here", "good.txt", ["評価", "good.txt"])
    for changed in ("good.txt", "評価/a.txt"):
        (tmp_path / "here" / changed).write_text("changed")
        content = keys.outside_content(stage)
        again = key("data.filter", stage.model_dump(), content=content)
        assert again not in found.values(), changed
        found[changed] = again


class Part(BaseModel):
    files: dict[str, list[InputPath]] = {}
    note: str = ""


class Deep(Stage):
    """Names files in lists and mappings of settings of its own."""

    makes = Kind.CORPUS
    parts: list[Part] = []
    by_name: dict[str, Part] = {}
    source: InputPath | list[InputPath] | bool = False


def test_lists_and_mappings_of_settings_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    settings = {
        "parts": [{"note": "/no/path"}, {"files": {"x": ["a.txt"]}}],
        "by_name": {"b.c": {"files": {"y": ["a.txt", "a.txt"]}}},
        "source": ["hub:one/two", "a.txt"],
    }
    stage = Deep.model_validate(settings, context={"folder": tmp_path})
    content = keys.outside_content(stage)
    assert set(content) == {("parts", 1, "files"), ("by_name", "b.c", "files"), ("source",)}
    other = settings | {"source": ["hub:one/three", "a.txt"]}
    changed = keys.outside_content(Deep.model_validate(other, context={"folder": tmp_path}))
    assert {at for at in content if content[at] != changed[at]} == {("source",)}, "a hub's name counts"
    found = keys.key_of(
        "data.read", stage, {}, seed=0, world=1, device="cpu", clock=None, content=content
    )  # every address is found again among the settings
    assert len(found) == 32


def test_what_changes_only_the_cost_is_no_part_of_the_key() -> None:
    settings = {"path": "/a/x.warc.gz"}
    assert key("data.extract", settings) == key("data.extract", settings | {"processes": 3})
    assert key("data.extract", settings) != key("data.extract", settings | {"max_page": "1MB"})


def test_versions_of_packages_that_make_the_text_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key("data.extract", {"path": "/a/x.warc.gz"})
    monkeypatch.setattr(keys, "package_version", lambda name: "0.1" if name == "resiliparse" else "1")
    assert key("data.extract", {"path": "/a/x.warc.gz"}) != before


def test_imports_for_types_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "if TYPE_CHECKING:\n    from kogata.nn.spec import ModelSpec\nfrom kogata.engine.text import spaced\n"
    )
    monkeypatch.setattr(keys, "_source", lambda module: source)
    keys._imports.cache_clear()
    try:
        assert "engine.text" in keys._imports("x") and "nn.spec" not in keys._imports("x")
    finally:
        keys._imports.cache_clear()
