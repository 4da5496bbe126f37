"""What is wrong in a recipe or a setting, and exactly what the user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import field_validator, model_validator
from toy_recipes import add_toys, load, message, told

from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.core.stage import Stage
from kogata.runtime.load import load_recipe


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_toys(monkeypatch, tmp_path)


PLACE = "小説.yaml:6:%d (stages[2].toy.train%s)"
TRAIN = "lr, steps, time, model, formats, compile, prompt, momentum, method"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            "learning_rate: 1",
            message(
                "unknown setting 'learning_rate' of toy.train",
                PLACE % (17, ".learning_rate"),
                "",
                f"one of {TRAIN}",
                "did you mean 'lr'?",
            ),
        ),
        (
            "model: {paramters: 1}",
            message(
                "unknown setting 'paramters' of toy.train.model",
                PLACE % (25, ".model.paramters"),
                "",
                "one of family, parameters",
                "did you mean 'parameters'?",
            ),
        ),
        (
            "parameters: 1",
            message(
                "unknown setting 'parameters' of toy.train",
                PLACE % (17, ".parameters"),
                "",
                f"one of {TRAIN}",
                "in toy.train it is written model: {parameters: 1}",
            ),
        ),
        (
            "lr: abc",
            message("wrong value for toy.train.lr", PLACE % (21, ".lr"), "'abc'", "a number, or 'auto'"),
        ),
        (
            "momentum: '0,02'",
            message(
                "wrong value for toy.train.momentum",
                PLACE % (27, ".momentum"),
                "'0,02'",
                "a number",
                "write 0.02",
            ),
        ),
        (
            "momentum: '０.９'",
            message(
                "wrong value for toy.train.momentum",
                PLACE % (27, ".momentum"),
                "'０.９'",
                "a number",
                "type it half-width: 0.9",
            ),
        ),
        ("lr: true", message("wrong value for toy.train.lr", PLACE % (21, ".lr"), "true", "a number")),
        (
            "momentum: yes",
            message("wrong value for toy.train.momentum", PLACE % (27, ".momentum"), "'yes'", "a number"),
        ),
        (
            "steps: 1.5",
            message("wrong value for toy.train.steps", PLACE % (24, ".steps"), "1.5", "a whole number"),
        ),
        ("steps: 0", message("wrong value for toy.train.steps", PLACE % (24, ".steps"), "0", "more than 0")),
        (
            "steps: 10k",
            message(
                "wrong value for toy.train.steps",
                PLACE % (24, ".steps"),
                "'10k'",
                "a whole number",
                "write 10000",
            ),
        ),
        (
            "time: 300",
            message(
                "wrong value for toy.train.time",
                PLACE % (23, ".time"),
                "the bare value 300",
                "a time needs a unit, for example '90s', '5min' or '1h30m'",
                "write 300s, 300min or 300h",
            ),
        ),
        (
            "time: 5 weeks",
            message(
                "toy.train.time: unknown unit 'weeks' in '5 weeks'; "
                "units of a time: ms, s, sec, min, m, h, d",
                PLACE % (23, ".time"),
                "'5 weeks'",
            ),
        ),
        (
            "model: {family: gpt}",
            message(
                "wrong value for toy.train.model.family",
                PLACE % (33, ".model.family"),
                "'gpt'",
                "'qwen3' or 'llama'",
            ),
        ),
        (
            "model: qwen3",
            message(
                "wrong value for toy.train.model",
                PLACE % (24, ".model"),
                "'qwen3'",
                "settings in braces, for example {name: value}",
            ),
        ),
        (
            "formats: hf",
            message(
                "wrong value for toy.train.formats",
                PLACE % (26, ".formats"),
                "'hf'",
                "a list, for example [a, b]",
                "write [hf]",
            ),
        ),
        (
            "formats: [hf, onnx]",
            message(
                "wrong value for toy.train.formats[1]",
                PLACE % (31, ".formats[1]"),
                "'onnx'",
                "'hf' or 'gguf'",
            ),
        ),
        (
            "prompt: 5",
            message(
                "wrong value for toy.train.prompt",
                PLACE % (25, ".prompt"),
                "5",
                "text",
                'put it in double quotes: "5"',
            ),
        ),
        (
            "steps: 5, time: 5min",
            message("toy.train: give at most one of steps, tokens, epochs, time", PLACE % (16, "")),
        ),
        (
            "as: a b",
            message(
                "`as` is not a name",
                PLACE % (21, ".as"),
                "'a b'",
                "a word of letters, digits, - and _ that begins with a letter",
            ),
        ),
        (
            "use: {corpus: toy.dedupp}",
            message(
                "no earlier stage is called 'toy.dedupp'",
                PLACE % (31, ".use.corpus"),
                "",
                "one of toy.read, toy.dedup",
                "did you mean 'toy.dedup'?",
            ),
        ),
        (
            "use: {corpsu: toy.dedup}",
            message(
                "toy.train takes nothing called 'corpsu'",
                PLACE % (23, ".use.corpsu"),
                "",
                "one of corpus, model",
                "did you mean 'corpus'?",
            ),
        ),
        (
            "use: {corpus: toy.train}",
            message(
                "'toy.train' comes later in the recipe",
                PLACE % (31, ".use.corpus"),
                "",
                "one of toy.read, toy.dedup",
                "a stage uses what earlier stages made: move it further down",
            ),
        ),
        (
            "use: {model: [toy.dedup]}",
            message(
                "toy.train takes one artifact as 'model'",
                PLACE % (30, ".use.model"),
                "[toy.dedup]",
                "one label",
            ),
        ),
        (
            "share: 2",
            message(
                "`share` is a part of the time",
                PLACE % (24, ".share"),
                "2",
                "a number above 0 and up to 1, for example 0.5",
            ),
        ),
    ],
)
def test_a_wrong_setting(settings: str, text: str) -> None:
    assert told(lambda: load(settings)) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            "t.rain.lr=1",
            message(
                "no setting is called 't.rain.lr'",
                "--set t.rain.lr=1",
                "",
                "STAGE.SETTING of toy.read, toy.dedup, toy.train, or name, budget, seed, plugins",
                "did you mean 'toy.train.lr'?",
            ),
        ),
        (
            "learning_rate=1",
            message(
                "no setting is called 'learning_rate'",
                "--set learning_rate=1",
                "",
                "STAGE.SETTING of toy.read, toy.dedup, toy.train, or name, budget, seed, plugins",
                "did you mean 'toy.train.lr'?",
            ),
        ),
        (
            "toy.train.lora_r=1",
            message(
                "unknown setting 'lora_r' of toy.train",
                "--set toy.train.lora_r=1",
                "",
                f"one of {TRAIN}",
                "`kogata stages toy.train` explains each",
            ),
        ),
        (
            "parameters=3",
            message(
                "no setting is called 'parameters'",
                "--set parameters=3",
                "",
                "STAGE.SETTING of toy.read, toy.dedup, toy.train, or name, budget, seed, plugins",
                "did you mean 'toy.train.model.parameters'?",
            ),
        ),
        ("lr=abc", message("wrong value for toy.train.lr", "--set lr=abc", "'abc'", "a number, or 'auto'")),
        ("lr", message("--set needs NAME=VALUE", "--set lr", "lr", "", "--set lr=VALUE")),
        ("lr=", message("no value given", "--set lr=", "", "NAME=VALUE", "for nothing, write null")),
        ("lr＝3", message("--set needs NAME=VALUE", "--set lr＝3", "a full-width '＝'", "", "--set lr=3")),
        (
            "toy.dedup=3",
            message(
                "'toy.dedup' is a stage, not a setting of one",
                "--set toy.dedup=3",
                "",
                "",
                "toy.dedup.SETTING=VALUE; to leave the stage out, --without toy.dedup",
            ),
        ),
        (
            "prompt=a",
            message(
                "toy.train: give at most one of steps, tokens, epochs, time",
                PLACE % (16, "") + " with --set prompt=a",
            ),
        ),
        (
            "formats.3=hf",
            message(
                "'toy.train.formats' is a list of 1",
                "--set formats.3=hf",
                "position 3",
                "a position from 0 to 0",
            ),
        ),
        (
            "steps.x=3",
            message(
                "'toy.train.steps' holds 5, which has no settings of its own",
                "--set steps.x=3",
                "",
                "",
                "set it as a whole: toy.train.steps={x: VALUE}",
            ),
        ),
        (".=1", message("'.' is no address", "--set .=1", "", "STAGE.SETTING")),
        ("data.read.path=x", "did you mean 'toy.read.path'?"),
    ],
)
def test_a_wrong_change(given: str, text: str) -> None:
    settings = {"prompt=a": "steps: 5, time: 5min", "formats.3=hf": "formats: [hf]", "steps.x=3": "steps: 5"}
    found = told(lambda: load(settings.get(given, ""), given))
    assert found == text or (not text.count("\n") and text in found)


def test_ambiguous_addresses_list_the_candidates() -> None:
    two = "stages:\n- toy.read: {path: a, as: a}\n- toy.read: {path: b, as: b}\n"
    for address in ("path", "toy.read.path"):
        assert told(lambda address=address: load("", f"{address}=x", text=two)) == message(
            f"{address!r} names several settings", f"--set {address}=x", "", "one of a.path, b.path",
            "say which; a stage gets a name of its own with `as:`",
        )  # fmt: skip


def test_a_stage_whose_setting_is_called_like_the_recipes_own() -> None:
    class Named(Stage):
        """Has a name."""

        makes = Kind.MODEL
        name: str = "x"

    registry._stages["toy.named"] = Named
    text = "name: r\nstages: [toy.named]\n"
    assert "one of recipe.name, toy.named.name" in told(lambda: load("", "name=y", text=text))
    assert load("", "recipe.name=y", text=text).name == "y"
    assert load("", "toy.named.name=y", text=text).stages[0].stage == Named(name="y")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            message(
                "the recipe is empty",
                "小説.yaml",
                "",
                "name, budget, seed, plugins, stages, each with a value",
                "`kogata new` writes a recipe to start from",
            ),
        ),
        (
            "- a",
            message(
                "a recipe is a mapping",
                "小説.yaml",
                "[a]",
                "name, budget, seed, plugins, stages, each with a value",
                "`kogata new` writes a recipe to start from",
            ),
        ),
        (
            "stagse: []",
            message(
                "unknown key 'stagse' in the recipe",
                "小説.yaml:1:1 (stagse)",
                "",
                "one of name, budget, seed, plugins, stages",
                "did you mean 'stages'?",
            ),
        ),
        ("toy.dedup: {}", "stages are entries of the list `stages:`, write   - toy.dedup: …"),
        ("name: x", "the recipe names no stages"),
        ("stages: []", "the recipe names no stages"),
        ("stages: {toy.dedup: {}}", "put '- ' before each stage"),
        ("stages: [5]", "an entry of `stages` is a stage's name with its settings"),
        ("stages:\n- toy.raed: {path: a}", "did you mean 'toy.read'?"),
        ("stages:\n- toy.raed: {path: a}", "小説.yaml:2:3 (stages[0].toy.raed)"),
        (
            "stages:\n- toy.read:\n  path: a",
            message(
                "an entry of `stages` has one name, this one also has 'path'",
                "小説.yaml:3:3 (stages[0].path)",
                "",
                "- toy.read: {path: a}",
                "indent the lines below it by two more spaces",
            ),
        ),
        ("stages:\n- toy.read: {path: a}\n  as: b", "put it inside: toy.read: {path: a, as: b}"),
        (
            "stages:\n- toy.read: a",
            message(
                "the settings of toy.read are a mapping",
                "小説.yaml:2:13 (stages[0].toy.read)",
                "'a'",
                "- toy.read: {SETTING: VALUE}",
                "`kogata stages toy.read` lists the settings",
            ),
        ),
        (
            "stages:\n- toy.read",
            message(
                "toy.read needs a value for 'path'",
                "小説.yaml:2:3 (stages[0].toy.read)",
                "",
                "a file, a folder or a pattern",
                "add path: VALUE, or --set toy.read.path=VALUE",
            ),
        ),
        (
            "stages:\n- toy.dedup\n- toy.dedup",
            message(
                "two stages are called 'toy.dedup'",
                "小説.yaml:3:3 (stages[1].toy.dedup)",
                "the first is 小説.yaml:2:3 (stages[0].toy.dedup)",
                "",
                "give each a name of its own:   - toy.dedup: {as: NAME, …}",
            ),
        ),
        ("stages:\n- toy.dedup: {share: 0.5}", "takes the time it needs"),
        ("stages:\n- toy.read: {path: a, use: {x: y}}", "no `use`: it takes no artifact"),
        ("budget: 5min\nstages: [toy.dedup]", "write budget: {time: 5min}"),
        ("budget: 4GiB\nstages: [toy.dedup]", "write budget: {memory: 4GiB}"),
        (
            "budget: {time: 5}\nstages: [toy.dedup]",
            message(
                "wrong value for budget.time",
                "小説.yaml:1:16 (budget.time)",
                "the bare value 5",
                "a time needs a unit, for example '90s', '5min' or '1h30m'",
                "write 5s, 5min or 5h",
            ),
        ),
        (
            "budget: {tmie: 5min}\nstages: [toy.dedup]",
            message(
                "unknown setting 'tmie' of budget",
                "小説.yaml:1:10 (budget.tmie)",
                "",
                "one of time, memory, gpu_memory, energy, size",
                "did you mean 'time'?",
            ),
        ),
        ("name: a/b\nstages: [toy.dedup]", "does not do as a folder's name"),
        ("name: ..\nstages: [toy.dedup]", "does not do as a folder's name"),
        ("name: 5\nstages: [toy.dedup]", 'put it in double quotes: name: "5"'),
        (
            "seed: -1\nstages: [toy.dedup]",
            message(
                "wrong value for seed", "小説.yaml:1:7 (seed)", "-1", "a whole number from 0 to 4294967295"
            ),
        ),
        ("seed: true\nstages: [toy.dedup]", "wrong value for seed"),
        ("plugins: x.py\nstages: [toy.dedup]", "`plugins` is a list of files"),
        ("plugins: [x.py]\nstages: [toy.dedup]", "no such plug-in file"),
    ],
)
def test_a_wrong_recipe(text: str, expected: str) -> None:
    found = told(lambda: load(text=text))
    assert found == expected or ("\n" not in expected and expected in found), found


def test_mistakes_in_python_have_an_address() -> None:
    recipe: dict[str, Any] = {"stages": [{"toy.train": {"lr": "abc"}}]}
    assert told(lambda: load_recipe(recipe)) == message(
        "wrong value for toy.train.lr", "stages[0].toy.train.lr", "'abc'", "a number, or 'auto'"
    )
    assert "at: the setting toy.train.lr" in told(
        lambda: load_recipe({"stages": ["toy.train"]}, {"toy.train.lr": "abc"})
    )
    assert recipe == {"stages": [{"toy.train": {"lr": "abc"}}]}, "the caller's values stay as they were"


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("5min", "--budget time=5min"),
        ("4GiB", "--budget memory=4GiB"),
        ("5Wh", "--budget energy=5Wh"),
        ("time", "--budget time=time"),
    ],
)
def test_a_lone_amount_is_named(given: str, remedy: str) -> None:
    assert f"remedy: {remedy}" in told(lambda: load(budget=[given]))


def test_wrong_budget_and_seed_options() -> None:
    assert "at: --budget tiem=5min" in told(lambda: load(budget=["tiem=5min"]))
    assert "at: --budget time=5" in told(lambda: load(budget=["time=5"]))
    assert "at: --seed -1" in told(lambda: load(seed=-1))


def test_the_words_of_a_validator_are_put_in_their_places() -> None:
    class Formats(Stage):
        """Knows one format."""

        makes = Kind.MODEL
        format: str = "hf"
        steps: int = 0

        @field_validator("format")
        @classmethod
        def _known(cls, value: str) -> str:
            if value != "hf":
                raise ValueError(f"unknown format {value!r}; expected one of hf, gguf")
            return value

        @model_validator(mode="after")
        def _none(self) -> Formats:
            if self.steps:
                raise ValueError("at most one of steps and time; found steps and time")
            return self

    registry._stages["toy.formats"] = Formats
    assert told(lambda: load(text="stages: [{toy.formats: {format: onnx}}]")) == message(
        "toy.formats.format: unknown format 'onnx'",
        "小説.yaml:1:33 (stages[0].toy.formats.format)",
        "'onnx'",
        "one of hf, gguf",
    )
    assert told(lambda: load(text="stages: [{toy.formats: {steps: 1}}]")) == message(
        "toy.formats: at most one of steps and time",
        "小説.yaml:1:24 (stages[0].toy.formats)",
        "steps and time",
    )


def test_a_mistyped_setting_that_lies_deeper() -> None:
    assert told(lambda: load("paramters: 7")).endswith("in toy.train it is written model: {parameters: 7}")


def test_an_error_of_ours_inside_a_validator_keeps_its_words() -> None:
    class Picky(Stage):
        """Refuses."""

        makes = Kind.MODEL
        path: str = "x"

        @model_validator(mode="after")
        def _refuse(self) -> Picky:
            raise RecipeError("unknown method 'lorra'", remedy="did you mean 'lora'?")

    registry._stages["toy.picky"] = Picky
    assert told(lambda: load(text="stages: [toy.picky]")) == message(
        "unknown method 'lorra'", "小説.yaml:1:10 (stages[0].toy.picky)", remedy="did you mean 'lora'?"
    )
