"""The store: sealed by digest, found by key, listed and freed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogata.core.amounts import Cost
from kogata.core.artifact import Kind
from kogata.core.errors import ArtifactError, RecipeError
from kogata.runtime.store import Store


def fill(store: Store, key: str, text: str = "本文") -> str:
    out, checkpoints = store.begin(key)
    (out / "a.txt").write_text(text, encoding="utf-8")
    (checkpoints / "half").write_text("x")
    artifact = store.prepare(key, Kind.CORPUS, {"n": 1}, "toy")
    store.seal(key, artifact, Cost(seconds=2.0), {"stage": "toy"})
    return artifact.digest


def test_sealed_found_and_partial_work_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = fill(store, "k1")
    found = store.find("k1")
    assert found is not None
    assert found.artifact.digest == digest
    assert found.first_cost == Cost(seconds=2.0)
    assert not store.partial("k1").exists()
    assert store.find("k2") is None


def test_checkpoints_outlive_a_new_beginning_and_out_does_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out, checkpoints = store.begin("k")
    (out / "half").write_text("x")
    (checkpoints / "step").write_text("7")
    out, checkpoints = store.begin("k")
    assert not list(out.iterdir())
    assert (checkpoints / "step").read_text() == "7"


def test_damage_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, "k1")
    found = store.find("k1")
    assert found is not None
    (found.artifact.path / "a.txt").write_text("changed")
    with pytest.raises(ArtifactError, match="damaged"):
        store.find("k1")
    (tmp_path / "keys" / "k1.json").write_text("{")
    with pytest.raises(ArtifactError, match="key file is damaged"):
        store.find("k1")


def test_list_remove_and_free(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, "k1", "one")
    fill(store, "k2", "two")
    store.begin("k3")
    kinds = sorted(row["kind"] for row in store.entries())
    assert kinds == ["corpus", "corpus", "partial"]
    store.free()
    assert [row["kind"] for row in store.entries()] == ["corpus", "corpus"]
    with pytest.raises(RecipeError, match="names nothing"):
        store.remove("zzz")
    name = store.entries()[0]["object"]
    assert store.remove(name[:10]) > 0
    assert len(store.entries()) == 1
    store.free(10**9)
    assert store.entries() == []
