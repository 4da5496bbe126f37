"""Example recipes run as they stand, and so do the commands of both READMEs, in order."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import quick_settings, quicken

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "examples").glob("*.yaml"))
READMES = sorted(ROOT.glob("README*.md"))
BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```", re.M | re.S)


def test_there_are_examples() -> None:
    assert {path.stem for path in RECIPES} >= {"quickstart", "japanese", "shakespeare"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_example_is_commented_and_plans(recipe: Path, kogata, tmp_path: Path) -> None:
    assert "#" in recipe.read_text(encoding="utf-8")
    shown = kogata("plan", str(recipe), cwd=tmp_path).stdout
    assert "train." in shown


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_example_runs(recipe: Path, kogata, tmp_path: Path) -> None:
    kogata(
        "run", str(recipe), *quick_settings(recipe), "--out", str(tmp_path / "run"), cwd=tmp_path, timeout=300
    )
    for name in ("report.html", "recipe.yaml", "plan.json", "receipts.jsonl"):
        assert (tmp_path / "run" / name).is_file(), name


def blocks(readme: Path, kind: str) -> list[str]:
    return [text for name, text in BLOCK.findall(readme.read_text(encoding="utf-8")) if name == kind]


def commands(readme: Path) -> set[tuple[str, ...]]:
    """Gives the shell commands of a page, without their comments."""
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    return {tuple(shlex.split(line, comments=True)) for line in lines}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_make_commands_exist(readme: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    code = re.findall(r"`[^`\n]+`|^```.*?^```", readme.read_text(encoding="utf-8"), re.M | re.S)
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(code)))
    assert named and named <= targets, f"not in the Makefile: {named - targets}"


def test_the_recipe_in_the_readme_is_the_example() -> None:
    (shown,) = blocks(ROOT / "README.md", "yaml")
    example = (ROOT / "examples" / "quickstart.yaml").read_text(encoding="utf-8")

    def bare(text: str) -> list[str]:
        lines = [re.sub(r"\s+#.*$|^#.*$", "", line).rstrip() for line in text.splitlines()]
        return [line for line in lines if line]

    assert bare(shown) == bare(example)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_readme_commands_run(readme: Path, kogata, tmp_path: Path) -> None:
    # A reader's folder: the examples, some text of their own, and what `make quickstart` left.
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    own = tmp_path / "my-texts"
    own.mkdir()
    shutil.copy(ROOT / "examples/data/novels/Doyle_Hound_1902.txt.gz", own)
    shutil.copy(ROOT / "examples/data/novels/Ward_Milly_1881.txt.gz", own)
    for recipe in (tmp_path / "examples").glob("*.yaml"):
        quicken(recipe)

    # What the English page has word for word is run there.
    english = ROOT / "README.md"
    known, known_code = (set(), []) if readme == english else (commands(english), blocks(english, "python"))
    for kind, block in BLOCK.findall(readme.read_text(encoding="utf-8")):
        if kind == "python" and block not in known_code:
            code = re.sub(r'("train\.pretrain\.steps": )\d+', r"\g<1>12", block)
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{code}\n{done.stderr[-3000:]}"
        for line in block.splitlines() if kind == "sh" else []:
            words = shlex.split(line, comments=True)
            if tuple(words) in known:
                continue
            if words[:2] == ["make", "quickstart"]:
                kogata("run", "examples/quickstart.yaml", cwd=tmp_path, timeout=300)
            elif words[:1] == ["kogata"]:
                if "--seeds" in words:
                    words[words.index("--seeds") + 1] = "2"
                kogata(*words[1:], cwd=tmp_path, timeout=600)
                if words[1] == "new":
                    quicken(tmp_path / f"{words[2]}.yaml")
            else:
                assert not words or words[0] == "make", f"this test does not know {line!r}"
