"""Recipes from YAML, from Python and from `--set`: one decoder, the same errors."""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogata.core.errors import RecipeError
from kogata.core.recipe import Recipe, Step
from kogata.core.registry import suggest
from kogata.core.stage import Stage
from kogata.runtime import addresses
from kogata.runtime.draft import Change, Draft
from kogata.runtime.yaml_text import Located, read_file, read_value, write_yaml

Overrides = Mapping[str, Any] | Sequence[str]
"""Address → value, or `["ADDRESS=VALUE", …]` as `--set` gives them."""


def load_recipe(
    recipe: Path | str | Mapping[str, Any],
    overrides: Overrides = (),
    *,
    budget: Sequence[str] = (),
    seed: int | None = None,
    allow_plugins: bool = False,
) -> Recipe:
    """Reads a recipe from a file, or from the plain values of one.

    Args:
        recipe: a YAML file's path, or a mapping as a file would hold it.
        overrides: settings to change, by address.
        budget: parts of the budget to change, `["time=5min"]`.
        seed: another seed.
        allow_plugins: run the plug-in files of a recipe that lies outside the current folder.

    Raises:
        RecipeError: something in it is wrong; says where, what was found, what was expected, the remedy.
    """
    if isinstance(recipe, Mapping):
        located = Located(value=copy.deepcopy(dict(recipe)), name="")
        draft = Draft(located, Path.cwd(), None, name="recipe")
    else:
        path = Path(recipe).expanduser()
        text, located = read_file(path)
        draft = Draft(located, path.absolute().parent, text, name=unicodedata.normalize("NFC", path.stem))
    draft.allow_plugins = allow_plugins
    changes = [("recipe.budget." + key, value, told) for key, value, told in _budget_parts(budget)]
    if seed is not None:
        changes.append(("recipe.seed", seed, f"--seed {seed}"))
    return draft.build([*_changes(overrides), *changes])


def with_settings(recipe: Recipe, settings: Overrides) -> Recipe:
    """Gives the recipe with some settings changed, by address; everything is checked again."""
    return _reopened(recipe).build(_changes(settings))


def without(recipe: Recipe, name: str) -> Recipe:
    """Gives the recipe without one stage, named by its label or its stage's name.

    Who used its artifact takes what it was given itself, where the recipe says so; else wiring finds anew.

    Raises:
        RecipeError: no stage, or several, have that name; or it is the only one.
    """
    gone = _step(recipe, name)
    if len(recipe.stages) == 1:
        raise RecipeError(f"{name!r} is the recipe's only stage", where=f"--without {name}")
    passed = [
        label for given in gone.use.values() for label in ([given] if isinstance(given, str) else given)
    ]
    steps: list[Step] = []
    for step in recipe.stages:
        if step is gone:
            continue
        use: dict[str, str | list[str]] = {}
        for slot, given in step.use.items():
            if isinstance(given, str):
                if given != gone.label:
                    use[slot] = given
                elif len(passed) == 1:
                    use[slot] = passed[0]
            else:
                kept = [label for item in given for label in (passed if item == gone.label else [item])]
                if kept:
                    use[slot] = list(dict.fromkeys(kept))
        steps.append(Step(name=step.name, stage=step.stage, label=step.label, use=use, share=step.share))
    return Recipe(
        name=recipe.name,
        stages=tuple(steps),
        budget=recipe.budget,
        seed=recipe.seed,
        plugins=recipe.plugins,
        folder=recipe.folder,
        source=recipe.source,
    )


def _step(recipe: Recipe, name: str) -> Step:
    found = [step for step in recipe.stages if step.label == name]
    found = found or [step for step in recipe.stages if step.name == name]
    if len(found) == 1:
        return found[0]
    labels = [step.label for step in recipe.stages]
    if found:
        raise RecipeError(
            f"{name!r} names several stages",
            where=f"--without {name}",
            expected=f"one of {', '.join(step.label for step in found)}",
        )
    near = suggest(name, [*labels, *(step.name for step in recipe.stages)])
    raise RecipeError(
        f"the recipe has no stage {name!r}",
        where=f"--without {name}",
        expected=f"one of {', '.join(labels)}",
        remedy=f"did you mean {near!r}?" if near else None,
    )


# Writing


def dump_recipe(recipe: Recipe) -> str:
    """Writes a recipe as YAML, every setting in full; `load_recipe` reads an equal one back."""
    return write_yaml(recipe.to_dict(lambda stage: _without_empty(stage, stage.model_dump(mode="json"))))


def _without_empty(model: Any, dumped: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the settings that hold nothing and would hold nothing by default."""
    from pydantic import BaseModel

    kept: dict[str, Any] = {}
    for name, value in dumped.items():
        info = type(model).model_fields.get(name)
        inner = getattr(model, name, None)
        if value is None and info is not None and info.default is None:
            continue
        kept[name] = (
            _without_empty(inner, value)
            if isinstance(inner, BaseModel) and isinstance(value, dict)
            else value
        )
    return kept


def _only_set(stage: Stage) -> dict[str, Any]:
    """Gives the settings a person wrote."""
    return stage.model_dump(mode="json", exclude_unset=True)


def _reopened(recipe: Recipe) -> Draft:
    located = Located(value=recipe.to_dict(_only_set), name="")
    draft = Draft(located, recipe.folder or Path.cwd(), recipe.source, name=recipe.name)
    draft.allow_plugins = True
    return draft


# What is to be changed


def _changes(overrides: Overrides) -> list[Change]:
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        return [
            (address, copy.deepcopy(value), f"the setting {address}") for address, value in overrides.items()
        ]
    found: list[Change] = []
    for text in overrides:
        address, value = addresses.split(text, "--set")
        found.append((address, read_value(value, f"--set {text}"), f"--set {text}"))
    return found


def _budget_parts(texts: Sequence[str]) -> list[Change]:
    found: list[Change] = []
    for text in [texts] if isinstance(texts, str) else texts:
        part, value = addresses.split(text, "--budget")
        found.append(
            (part.removeprefix("budget."), read_value(value, f"--budget {text}"), f"--budget {text}")
        )
    return found
