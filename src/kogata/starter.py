"""A recipe to start from: one of the examples, with the reader's own text or model put in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kogata.core.errors import DataError, EnvironmentProblem, RecipeError

_READ = re.compile(r"^(\s*- data\.read:) \{(.*)\}\s*$", re.M)
_ROWS = re.compile(r"^\s*- data\.read:.*\bcolumns:", re.M)
_PATH = re.compile(r"(?<![\w/.])(data/[^\s,}]+)")
_PRETRAIN = re.compile(r"^( *)- train\.pretrain: \{.*\}.*$", re.M)
_TOKENIZER = re.compile(r"^ *- tokenizer\.train:.*\n", re.M)


def examples_folder() -> Path:
    """Finds the examples: in an installed package, else in the checkout.

    Raises:
        EnvironmentProblem: neither is there.
    """
    here = Path(__file__).resolve().parent
    for place in (here / "_examples", here.parent.parent / "examples"):
        if (place / "quickstart.yaml").exists():
            return place
    raise EnvironmentProblem("the examples are missing from this installation", where=str(here))


def example_names() -> list[str]:
    """Lists the examples by name."""
    return sorted(path.stem for path in examples_folder().glob("*.yaml"))


def new(
    example: str = "quickstart",
    *,
    data: str | None = None,
    model: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Writes a commented recipe that runs, and returns its path.

    Args:
        example: one of `example_names()`.
        data: the text to read instead of the example's own: a file, a folder or a pattern.
        model: a model to go on training instead of starting from nothing.
        out: where to write it; `EXAMPLE.yaml` here by default. Nothing is overwritten.

    Raises:
        RecipeError: no such example, or the file is there already.
        DataError: the data are not there.
    """
    folder = examples_folder()
    if example not in example_names():
        from kogata.core.registry import suggest

        near = suggest(example, example_names())
        raise RecipeError(
            f"unknown example {example!r}",
            expected=f"one of {', '.join(example_names())}",
            remedy=f"did you mean {near!r}?" if near else None,
        )
    target = Path(out) if out is not None else Path(f"{example}.yaml")
    if target.exists():
        raise RecipeError(
            "the file is there already", where=str(target), remedy="name another with --out FILE"
        )
    text = (folder / f"{example}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"examples/{example}.yaml", str(target))
    text = _with_data(text, data, target) if data is not None else _with_example_data(text, folder, target)
    if model is not None:
        text = _with_model(text, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EnvironmentProblem(
            "the recipe cannot be written", where=str(target), found=str(error)
        ) from None
    return target


def _with_data(text: str, data: str, target: Path) -> str:
    from kogata.core.paths import expand_input

    if "://" not in data:
        try:
            expand_input(data)
        except DataError as error:
            raise DataError(
                error.what, where=error.where, found=error.found, expected=error.expected
            ) from None
    name = re.sub(r"[^\w.-]+", "-", Path(data.rstrip("/")).name.split(".")[0].strip("*")).strip("-") or "mine"
    text = re.sub(r"^name: .*$", f"name: {name}", text, count=1, flags=re.M)
    place = quoted(_from(data, target))
    if _ROWS.search(text):
        line = f"{{path: {place}, kind: examples, heldout: 0.1}}   # `kogata check` tells what is wrong"
        return _READ.sub(lambda found: f"{found[1]} {line}", text, count=1)
    line = f"{{path: {place}, heldout: 0.05}}   # a twentieth is set apart to score on"
    text = _READ.sub(lambda found: f"{found[1]} {line}", text, count=1)
    text = re.sub(
        r"^# .*", "# A small language model of your own text, on an ordinary computer.", text, count=1
    )
    text = text.replace("on the held-out novel", "on the held-out text")
    return re.sub(r"^ *# `heldout` is text .*\n", "", text, flags=re.M)


def _with_example_data(text: str, folder: Path, target: Path) -> str:
    """Names the example's own files from where the new recipe lies."""
    return _READ.sub(
        lambda found: _PATH.sub(lambda path: quoted(_from(str(folder / path[1]), target)), found[0]),
        text,
        count=1,
    )


def _with_model(text: str, model: str) -> str:
    """Puts a model in the place of the tokenizer and the new weights."""
    place = model if "://" in model or not Path(model).exists() else str(Path(model).resolve())
    text = _TOKENIZER.sub(f"  - model.read: {{name: {quoted(place)}}}\n", text, count=1)
    return _PRETRAIN.sub(
        r"\1- train.pretrain: {}                # goes on training it, in the time the others leave", text
    )


def _from(path: str, target: Path) -> str:
    """Writes a path as seen from the recipe's folder; as it is where that is no shorter."""
    if "://" in path or path.startswith("~"):
        return path
    full = os.path.abspath(path)
    near = os.path.relpath(full, target.parent.resolve())
    return full if near.startswith(os.path.join("..", "..", "..")) else Path(near).as_posix()


def quoted(text: str) -> str:
    """Quotes a YAML value of a flow mapping where it needs it."""
    if re.fullmatch(r"[\w./~][\w./*~@+-]*", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
