"""A recipe that is still plain values: what is in it, where it stands, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kogata.core.amounts import Budget
from kogata.core.errors import RecipeError
from kogata.core.recipe import Recipe, Step
from kogata.core.registry import registry, suggest
from kogata.core.stage import Stage
from kogata.runtime import addresses, explain
from kogata.runtime.addresses import TOP, Entry
from kogata.runtime.yaml_text import Located, Path_

Change = tuple[str, Any, str]
"""Address, value, and how it was given."""

RESERVED = ("as", "use", "share")
"""What an entry says beside its stage's settings."""
LARGEST_SEED = 2**32 - 1
_LABEL = re.compile(r"[^\W\d][\w-]*")
_UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass
class Draft:
    """A recipe that is still plain values, and where each of them was given."""

    located: Located
    folder: Path
    source: str | None
    name: str
    allow_plugins: bool = False
    given: dict[Path_, str] = field(default_factory=dict)
    """Path → the option that set it."""

    def where(self, path: Path_, key: bool = False) -> str:
        """Gives the option or the file, line and column where a part stands, and its path."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.given:
                return self.given[path[:length]]
        place = self.located.where(path, key=key)
        full = _told(path)
        place = f"{place} ({full})" if place and full else place or full or "the recipe"
        # A rule over several settings, one of which an option gave.
        below = [told for at, told in self.given.items() if at[: len(path)] == path]
        return f"{place} with {', '.join(below)}" if path and below and not key else place

    def build(self, changes: Sequence[Change]) -> Recipe:
        """Applies the changes and checks everything."""
        raw = self.located.value
        self._check_top(raw)
        load_installed_plugins()
        self._load_plugins(raw.get("plugins"))
        for address, value, told in changes:
            path = addresses.find(address, self._entries(raw), told)
            addresses.put(raw, path, value, told)
            # The latest word on a path, or on anything below it, is the one that counts.
            self.given = {at: said for at, said in self.given.items() if at[: len(path)] != path}
            self.given[path] = told
            if path[0] == "plugins":
                self._load_plugins(value)
        entries = self._entries(raw)
        self._check_labels(entries)
        return Recipe(
            name=self._name(raw),
            stages=tuple(self._step(entry, entries, raw) for entry in entries),
            budget=self._budget(raw.get("budget")),
            seed=self._seed(raw.get("seed")),
            plugins=tuple(raw.get("plugins") or ()),
            folder=self.folder,
            source=self.source,
        )

    def _check_top(self, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise RecipeError(
                "the recipe is empty" if raw is None else "a recipe is a mapping",
                where=self.where(()),
                found=None if raw is None else explain.shown(raw),
                expected=f"{', '.join(TOP)}, each with a value",
                remedy="`kogata new` writes a recipe to start from",
            )
        for key in raw:
            if key not in TOP:
                near = suggest(str(key), TOP)
                if key in registry.stage_names():
                    remedy = f"stages are entries of the list `stages:`, write   - {key}: …"
                else:
                    remedy = f"did you mean {near!r}?" if near else None
                raise RecipeError(
                    f"unknown key {key!r} in the recipe",
                    where=self.where((key,), True),
                    expected=f"one of {', '.join(TOP)}",
                    remedy=remedy,
                )
        stages = raw.get("stages")
        if not isinstance(stages, list) or not stages:
            missing = "stages" not in raw
            raise RecipeError(
                "the recipe names no stages" if missing or not stages else "`stages` is a list",
                where=self.where(("stages",)),
                found=None if not stages else explain.shown(stages),
                expected="stages:\n    - data.read: {path: FILE}\n    - …",
                remedy="put '- ' before each stage" if isinstance(stages, dict) and stages else None,
            )

    def _load_plugins(self, plugins: Any) -> None:
        if plugins is None:
            return
        if not isinstance(plugins, list | tuple) or not all(isinstance(item, str) for item in plugins):
            raise RecipeError(
                "`plugins` is a list of files",
                where=self.where(("plugins",)),
                found=explain.shown(plugins),
                expected="plugins: [my_stage.py]",
            )
        if (
            plugins
            and not self.allow_plugins
            and not self.folder.resolve().is_relative_to(Path.cwd().resolve())
        ):
            raise RecipeError(
                "the recipe is from elsewhere and wants to run code of its own",
                where=self.where(("plugins",)),
                found=", ".join(plugins),
                remedy=f"read {', '.join(str(self.folder / item) for item in plugins)}; if you trust it, "
                "add --allow-plugins",
            )
        for item in plugins:
            registry.load_plugin(self.folder / item)

    def _entries(self, raw: dict[str, Any]) -> list[Entry]:
        found: list[Entry] = []
        for index, item in enumerate(raw["stages"]):
            name, settings = self._entry(index, item)
            # One form for all, so that a change has a place to go.
            raw["stages"][index] = {name: settings}
            path = ("stages", index, name)
            try:
                model = registry.stage(name)
            except RecipeError as error:
                if not error.what.startswith("unknown stage"):
                    raise
                raise RecipeError(
                    error.what, where=self.where(path, True), expected=error.expected, remedy=error.remedy
                ) from None
            label = settings.get("as")
            found.append(Entry(index, name, label if isinstance(label, str) else name, model, path))
        return found

    def _entry(self, index: int, item: Any) -> tuple[str, dict[str, Any]]:
        path: Path_ = ("stages", index)
        if isinstance(item, str):
            return item, {}
        if not isinstance(item, dict) or not item:
            raise RecipeError(
                "an entry of `stages` is a stage's name with its settings",
                where=self.where(path),
                found=explain.shown(item),
                expected="- data.read: {path: FILE}",
            )
        name, *others = map(str, item)
        if others:
            settings = item[name]
            outside = (
                "indent the lines below it by two more spaces" if settings is None else "put it inside: "
            )
            inside = {
                **(settings if isinstance(settings, dict) else {}),
                **{key: item[key] for key in others},
            }
            raise RecipeError(
                f"an entry of `stages` has one name, this one also has {', '.join(map(repr, others))}",
                where=self.where((*path, others[0]), True),
                expected=f"- {name}: {explain.shown(inside)}",
                remedy=outside if settings is None else f"{outside}{name}: {explain.shown(inside)}",
            )
        settings = item[name]
        if settings is None:
            settings = {}
        if not isinstance(settings, dict):
            raise RecipeError(
                f"the settings of {name} are a mapping",
                where=self.where((*path, name)),
                found=explain.shown(settings),
                expected=f"- {name}: {{SETTING: VALUE}}",
                remedy=f"`kogata stages {name}` lists the settings",
            )
        return name, settings

    def _check_labels(self, entries: list[Entry]) -> None:
        seen: dict[str, Entry] = {}
        for entry in entries:
            settings = self.located.value["stages"][entry.index][entry.name]
            label, path = settings.get("as"), (*entry.path, "as")
            if "as" in settings and not (isinstance(label, str) and _LABEL.fullmatch(label)):
                raise RecipeError(
                    "`as` is not a name",
                    where=self.where(path),
                    found=explain.shown(label),
                    expected="a word of letters, digits, - and _ that begins with a letter",
                )
            if label in registry.stage_names() and label != entry.name:
                raise RecipeError(
                    f"{label!r} is the name of another stage",
                    where=self.where(path),
                    remedy="choose another name",
                )
            if entry.label in seen:
                other = seen[entry.label]
                raise RecipeError(
                    f"two stages are called {entry.label!r}",
                    where=self.where(path if label else entry.path, not label),
                    found=f"the first is {self.where(other.path, True)}",
                    remedy=f"give each a name of its own:   - {entry.name}: {{as: NAME, …}}",
                )
            seen[entry.label] = entry

    def _step(self, entry: Entry, entries: list[Entry], raw: dict[str, Any]) -> Step:
        given: dict[str, Any] = raw["stages"][entry.index][entry.name]
        settings = {key: value for key, value in given.items() if key not in RESERVED}

        def where(path: Path_, key: bool) -> str:
            return self.where((*entry.path, *path), key)

        stage = explain.validate(
            entry.model, settings, label=entry.label, where=where, context={"folder": self.folder}
        )
        assert isinstance(stage, Stage)
        return Step(
            name=entry.name,
            stage=stage,
            label=entry.label,
            use=self._use(entry, given.get("use"), entries),
            share=self._share(entry, given.get("share")),
        )

    def _use(self, entry: Entry, use: Any, entries: list[Entry]) -> dict[str, str | list[str]]:
        path = (*entry.path, "use")
        if use is None:
            return {}
        slots = entry.model.takes
        if not isinstance(use, dict):
            raise RecipeError(
                "`use` names slots and who fills them",
                where=self.where(path),
                found=explain.shown(use),
                expected=f"use: {{{next(iter(slots), 'SLOT')}: LABEL}}",
            )
        earlier = [other.label for other in entries[: entry.index]]
        for slot, given in use.items():
            here = (*path, slot)
            if slot not in slots:
                near = suggest(slot, slots)
                raise RecipeError(
                    f"{entry.name} takes nothing called {slot!r}",
                    where=self.where(here, True),
                    expected=f"one of {', '.join(slots)}" if slots else "no `use`: it takes no artifact",
                    remedy=f"did you mean {near!r}?" if near else None,
                )
            labels = given if isinstance(given, list) else [given]
            if not labels or not all(isinstance(label, str) for label in labels):
                raise RecipeError(
                    f"`use: {slot}` is not a label",
                    where=self.where(here),
                    found=explain.shown(given),
                    expected="a label, or a list of labels",
                )
            if isinstance(given, list) and not slots[slot].many:
                raise RecipeError(
                    f"{entry.name} takes one artifact as {slot!r}",
                    where=self.where(here),
                    found=explain.shown(given),
                    expected="one label",
                )
            for label in labels:
                if label not in earlier:
                    raise self._no_label(label, here, earlier, entries)
        return dict(use)

    def _no_label(self, label: str, path: Path_, earlier: list[str], entries: list[Entry]) -> RecipeError:
        later = [entry for entry in entries if entry.label == label]
        named = [entry.label for entry in entries if entry.name == label and entry.label in earlier]
        near = suggest(label, earlier)
        if later:
            remedy = "a stage uses what earlier stages made: move it further down"
        elif named:
            remedy = f"that stage is called {' and '.join(map(repr, named))} here"
        else:
            remedy = f"did you mean {near!r}?" if near else None
        return RecipeError(
            f"{label!r} comes later in the recipe" if later else f"no earlier stage is called {label!r}",
            where=self.where(path),
            expected=f"one of {', '.join(earlier)}" if earlier else "an earlier stage",
            remedy=remedy,
        )

    def _share(self, entry: Entry, share: Any) -> float | None:
        if share is None:
            return None
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise RecipeError(
                "`share` is a part of the time",
                where=self.where((*entry.path, "share")),
                found=explain.shown(share),
                expected="a number above 0 and up to 1, for example 0.5",
            )
        if not entry.model.elastic:
            raise RecipeError(
                f"{entry.name} takes the time it needs; a `share` of the time means nothing to it",
                where=self.where((*entry.path, "share"), True),
                remedy="remove `share`",
            )
        return float(share)

    def _name(self, raw: dict[str, Any]) -> str:
        name = raw.get("name")
        name = self.name if name is None else name
        if (
            isinstance(name, str)
            and name.strip(" .")
            and len(name.encode()) <= 120
            and not _UNFIT.search(name)
        ):
            return name
        raise RecipeError(
            "the recipe's name does not do as a folder's name",
            where=self.where(("name",)),
            found=explain.shown(name),
            expected='text of 1 to 120 bytes without / \\ : * ? " < > |',
            remedy=f'put it in double quotes: name: "{name}"' if isinstance(name, int | float) else None,
        )

    def _seed(self, seed: Any) -> int:
        if seed is None:
            return 0
        if isinstance(seed, float) and seed.is_integer():
            seed = int(seed)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            raise RecipeError(
                "wrong value for seed",
                where=self.where(("seed",)),
                found=explain.shown(seed),
                expected=f"a whole number from 0 to {LARGEST_SEED}",
            )
        return seed

    def _budget(self, budget: Any) -> Budget:
        if budget is None:
            return Budget()
        if not isinstance(budget, dict):
            raise RecipeError(
                "`budget` is a mapping",
                where=self.where(("budget",)),
                found=explain.shown(budget),
                expected="budget: {time: 10min, memory: 4GiB}, each part where it binds",
                remedy=addresses.as_budget(budget),
            )
        made = explain.validate(
            Budget, budget, label="budget", where=lambda path, key: self.where(("budget", *path), key)
        )
        assert isinstance(made, Budget)
        return made


def _told(path: Path_) -> str:
    """Writes a path as people read it: `stages[3].train.pretrain.lr`."""
    return explain.address("", path).removeprefix(".")


@cache
def load_installed_plugins() -> None:
    """Registers the plug-ins of installed packages, once."""
    try:
        registry.load_installed()
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(
            "an installed plug-in does not load",
            found=f"{type(error).__name__}: {error}",
            remedy="update or uninstall the package (entry point group `kogata.plugins`)",
        ) from error
