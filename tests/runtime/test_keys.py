"""Keys: what they depend on, and what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogata.core.registry import registry
from kogata.core.stage import Share
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
    first, second = ({"path": digest} for digest in ("a", "b"))
    assert key("data.read", {"path": "x"}, content=first) != key("data.read", {"path": "x"}, content=second)
    assert key("data.read", {"path": "/a/x"}, content=first) == key(
        "data.read", {"path": "/b/x"}, content=first
    )


def test_outside_files_count_by_content(tmp_path: Path) -> None:
    (tmp_path / "小説.txt").write_text("一")
    stage = registry.stage("data.read").model_validate({"path": "小説.txt"}, context={"folder": tmp_path})
    before = keys.outside_content(stage)
    assert set(before) == {"path"}
    (tmp_path / "小説.txt").write_text("二")
    assert keys.outside_content(stage) != before
