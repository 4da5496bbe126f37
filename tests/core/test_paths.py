"""Input paths: files, folders and patterns, in a fixed order."""

from pathlib import Path

import pytest

from kogata.core.errors import DataError
from kogata.core.paths import expand_input, hash_files


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "小説.txt").write_text("a")
    (tmp_path / ".hidden").write_text("x")
    assert [path.name for path in expand_input(str(tmp_path))] == ["b.txt", "小説.txt"]
    assert [path.name for path in expand_input(str(tmp_path / "*.txt"))] == ["b.txt", "小説.txt"]
    assert expand_input(str(tmp_path / "b.txt")) == [tmp_path / "b.txt"]


def test_a_missing_path_shows_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "novels.txt").write_text("b")
    with pytest.raises(DataError) as caught:
        expand_input(str(tmp_path / "novel.txt"))
    assert "novels.txt" in str(caught.value)


def test_the_hash_is_of_names_and_contents_only(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("same")
    first, second = ([tmp_path / folder / "x.txt"] for folder in ("a", "b"))
    assert hash_files(first) == hash_files(second)
    second[0].write_text("other")
    assert hash_files(first) != hash_files(second)
