"""`kogata check`: rows are read as data.read would read them, and looked at as a model would see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kogata.core.artifact import Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.recipe import Recipe, Step
from kogata.runtime.load import load_recipe

if TYPE_CHECKING:
    from kogata.engine.checking import Checked

RECIPES = (".yaml", ".yml")


def check(
    data: str | Path | Sequence[str | Path] | Recipe,
    *,
    model: str | None = None,
    context: int | None = None,
    allow_plugins: bool = False,
    **settings: Any,
) -> Checked:
    """Says what is wrong with rows before anything is trained on them.

    Args:
        data: files, folders or patterns; or a recipe, whose rows, model and chat format are taken.
        model: a name as model.read takes it; adds lengths, unknown tokens and what is trained.
        context: tokens of the longest row, instead of what the model takes.
        allow_plugins: run the plug-in files that the recipe names.
        settings: of data.read: columns, group, system, encoding, heldout, test. Nothing is held out unless
            told.

    Raises:
        KogataError: nothing can be read, the columns cannot be told, or the model cannot be found.
    """
    from kogata.engine.checking import check_rows
    from kogata.engine.model_view import ModelView

    if context is not None and context < 1:
        raise RecipeError("no tokens in a row", where="--context", found=str(context), expected="1 or more")
    given = {name: value for name, value in settings.items() if value not in (None, {})}
    recipe = _recipe(data, allow_plugins)
    tuned: Mapping[str, Any] = {}
    revision = None
    if recipe is None:
        paths = [data] if isinstance(data, str | Path) else data
        assert not isinstance(paths, Recipe)
        where = ", ".join(map(str, paths))
        reader = _reader([str(path) for path in paths], given)
    else:
        if given:
            raise RecipeError(
                "a recipe says itself how its rows are read",
                where="kogata check",
                found=", ".join(f"--{name}" for name in given),
                remedy=f"change {next(iter(given))} in data.read, or name the data instead of the recipe",
            )
        where = recipe.name
        reader = _rows_of(recipe)
        named = _last(recipe, "model.read")
        if model is None and named is not None:
            model, revision = named.stage.model_dump()["name"], named.stage.model_dump()["revision"]
        finetune = _last(recipe, "train.finetune")
        tuned = {} if finetune is None else finetune.stage.model_dump()
    view = None if model is None else ModelView.of(model, revision, tuned.get("template", "auto"))
    asked = context or (tuned.get("context") if tuned.get("context") != "auto" else None)
    if view is not None and asked is not None:
        view = replace(view, context=asked)
    options = {name: tuned[name] for name in ("prompt_weight", "turns") if name in tuned}
    try:
        return check_rows(reader.reading(), view, where=where, **options)
    except DataError as error:
        raise _for_options(error, recipe is None) from None


def _recipe(data: str | Path | Sequence[str | Path] | Recipe, allow_plugins: bool) -> Recipe | None:
    if isinstance(data, Recipe):
        return data
    paths = [data] if isinstance(data, str | Path) else list(data)
    if not any(Path(path).suffix in RECIPES for path in paths):
        return None
    if len(paths) > 1:
        raise RecipeError(
            "one recipe is checked at a time",
            found=", ".join(map(str, paths)),
            remedy="name the recipe alone, or the data alone",
        )
    return load_recipe(paths[0], allow_plugins=allow_plugins)


def _reader(paths: list[str], settings: Mapping[str, Any]) -> Any:
    # Nothing is held out unless told: a check looks at every row.
    read = {"path": paths[0] if len(paths) == 1 else paths, "kind": "examples", "heldout": 0, **settings}
    return load_recipe({"name": "check", "stages": [{"data.read": read}]}).stages[0].stage


def _rows_of(recipe: Recipe) -> Any:
    """Gives the stage that reads the recipe's rows; of a recipe of texts, the one that reads them."""
    readers = [step for step in recipe.stages if step.name == "data.read"]
    of_rows = [step for step in readers if step.stage.made_kind({}) == Kind.EXAMPLES]
    chosen = of_rows or readers
    if len(chosen) != 1:
        raise RecipeError(
            "the recipe reads no data" if not chosen else "several stages read rows",
            where=recipe.name,
            found=", ".join(step.label for step in chosen) or "no data.read",
            remedy="name the files instead of the recipe",
        )
    stage: Any = chosen[0].stage
    if not of_rows:
        stage = stage.model_copy(update={"kind": "examples", "heldout": 0.0, "test": None})
    return stage


def _last(recipe: Recipe, name: str) -> Step | None:
    return next((step for step in reversed(recipe.stages) if step.name == name), None)


def _for_options(error: DataError, of_files: bool) -> DataError:
    """Says how the command line names columns, where an error tells what a recipe would say."""
    if of_files and error.remedy and "columns: {" in error.remedy:
        error.remedy += "; to check: --columns ROLE=HEADER"
    return error
