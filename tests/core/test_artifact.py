"""Artifacts: sealed folders that are refused by name when they differ."""

from pathlib import Path

import pytest

from kogata.core.artifact import Kind, read_artifact, write_manifest
from kogata.core.errors import ArtifactError


def seal(folder: Path) -> str:
    (folder / "inner").mkdir(parents=True)
    (folder / "本文.txt").write_text("吾輩は猫である。", encoding="utf-8")
    (folder / "inner" / "b.bin").write_bytes(b"\0\1\2")
    return write_manifest(folder, Kind.CORPUS, {"documents": 1}, {"stage": "data.read", "key": "k"})


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    assert seal(tmp_path / "a") == seal(tmp_path / "b")
    artifact = read_artifact(tmp_path / "a")
    assert artifact.kind is Kind.CORPUS
    assert artifact.facts == {"documents": 1}


@pytest.mark.parametrize("harm", ["change", "cut", "remove", "add", "manifest"])
def test_a_damaged_artifact_is_refused_by_name(tmp_path: Path, harm: str) -> None:
    seal(tmp_path / "a")
    file = tmp_path / "a" / "本文.txt"
    if harm == "change":
        content = bytearray(file.read_bytes())
        content[0] ^= 1
        file.write_bytes(bytes(content))
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "remove":
        file.unlink()
    elif harm == "add":
        (tmp_path / "a" / "extra").write_text("x")
    else:
        (tmp_path / "a" / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError) as caught:
        read_artifact(tmp_path / "a")
    assert "damaged" in str(caught.value)
    assert caught.value.where is not None
    assert caught.value.remedy is not None


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a sealed artifact"):
        read_artifact(tmp_path)
