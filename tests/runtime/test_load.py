"""Recipes from files, from Python and from --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_recipes import BASE, Dedup, Read, Shape, Train, add_toys, load, message, told

from kogata.core.errors import EnvironmentProblem, RecipeError
from kogata.core.registry import registry
from kogata.runtime import draft
from kogata.runtime.load import dump_recipe, load_recipe, with_settings, without
from kogata.runtime.yaml_text import read_text


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_toys(monkeypatch, tmp_path)


# What works


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = load("lr: 1e-3, steps: 1e3, prompt: no")
    assert (recipe.name, recipe.budget.time, recipe.seed) == ("n", 600, 0)
    assert [step.label for step in recipe.stages] == ["toy.read", "toy.dedup", "toy.train"]
    read, train = recipe.stages[0].stage, recipe.stages[2].stage
    assert isinstance(read, Read) and isinstance(train, Train)
    assert read.path == str(tmp_path / "a" / "*.txt"), "paths are relative to the recipe"
    assert (train.lr, train.steps, train.prompt) == (0.001, 1000, "no")
    assert recipe.folder == tmp_path and recipe.source == BASE % "lr: 1e-3, steps: 1e3, prompt: no"


def test_the_name_is_the_files_own() -> None:
    assert load(text="stages: [toy.dedup]").name == "小説"
    # macOS takes file names apart: ガ as カ and a mark.
    Path("カ\u3099.yaml").write_text("stages: [toy.dedup]", encoding="utf-8")
    assert load_recipe("カ\u3099.yaml").name == "ガ"
    assert load_recipe({"stages": ["toy.dedup"]}).name == "recipe"


@pytest.mark.parametrize(
    "entry", ["- toy.dedup", "- toy.dedup:", "- toy.dedup: {}", "- toy.dedup: null", "- {toy.dedup: }"]
)
def test_every_form_of_an_entry(entry: str) -> None:
    assert load(text=f"stages:\n{entry}\n").stages[0].stage == Dedup()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_mark(newline: str) -> None:
    Path("r.yaml").write_bytes(
        b"\xef\xbb\xbf" + "seed: 3\nstages: [toy.dedup]\n".replace("\n", newline).encode()
    )
    assert load_recipe("r.yaml").seed == 3


@pytest.mark.parametrize(
    ("sets", "field", "value"),
    [
        (["lr=0.02"], "lr", 0.02),
        (["toy.train.lr=1e-3"], "lr", 0.001),
        (["lr=1e5"], "lr", 1e5),
        (["lr=.5"], "lr", 0.5),
        (["formats=[hf, gguf]"], "formats", ("hf", "gguf")),
        (["toy.train.model.parameters=1000"], "model", Shape(parameters=1000)),
        (
            ["model={family: llama}", "toy.train.model.parameters=7"],
            "model",
            Shape(family="llama", parameters=7),
        ),
        (["prompt=no"], "prompt", "no"),
        (["prompt='5'"], "prompt", "5"),
        (["prompt=質問：{問い}"], "prompt", "質問：{問い}"),
        (["steps=null"], "steps", None),
        (["time=5min"], "time", 300.0),
        (["lr=1", "lr=2"], "lr", 2.0),
        (["method=lora", "method.lora.rank=16"], "method", {"lora": {"rank": 16}}),
        (["compile=no"], "compile", False),
    ],
)
def test_settings_are_changed(sets: list[str], field: str, value: Any) -> None:
    assert getattr(load("", *sets).stages[2].stage, field) == value


def test_python_and_the_command_line_are_one_thing() -> None:
    path = Path("r.yaml")
    path.write_text(BASE % "")
    assert load_recipe(path, {"toy.train.lr": 0.02}) == load_recipe(path, ["toy.train.lr=0.02"])
    assert load_recipe(path, {"lr": 0.02}) == with_settings(load_recipe(path), {"lr": 0.02})


def test_budget_and_seed_are_changed() -> None:
    recipe = load("", budget=["time=5min", "memory=1GiB"], seed=7)
    assert (recipe.budget.time, recipe.budget.memory, recipe.seed) == (300, 2**30, 7)
    assert load(text="stages: [toy.dedup]", budget=["size=5MB"]).budget.size == 5_000_000
    assert load("", "budget.time=1h", "seed=9", "name=x").budget.time == 3600


def test_a_change_reaches_into_a_list() -> None:
    assert load("formats: [hf]", "formats.0=gguf").stages[2].stage.formats == ("gguf",)  # type: ignore[attr-defined]


def test_labels_and_use() -> None:
    recipe = load(
        text="stages:\n"
        "  - toy.read: {path: a, as: 新聞}\n"
        "  - toy.read: {path: b, as: books}\n"
        "  - toy.train: {use: {corpus: [新聞, books]}, share: 0.5}\n"
    )
    assert [step.label for step in recipe.stages] == ["新聞", "books", "toy.train"]
    assert recipe.stages[2].use == {"corpus": ["新聞", "books"]} and recipe.stages[2].share == 0.5
    changed = with_settings(recipe, {"books.path": "c"})
    assert [getattr(step.stage, "path", "")[-1:] for step in changed.stages] == ["a", "c", ""]


def test_changing_a_recipe_keeps_what_was_not_set_unset() -> None:
    changed = with_settings(load("lr: 1"), {"momentum": 0.5})
    assert changed.stages[2].stage.model_fields_set == {"lr", "momentum"}
    assert changed.stages[0].stage == load().stages[0].stage, "a path is not made relative twice"
    assert "at most one" in told(lambda: with_settings(load("steps: 5"), {"time": "5min"}))


def test_a_stage_is_left_out() -> None:
    assert [step.name for step in without(load(), "toy.dedup").stages] == ["toy.read", "toy.train"]
    recipe = load(
        text="stages:\n  - toy.read: {path: a, as: a}\n  - toy.dedup: {as: once, use: {corpus: a}}\n"
        "  - toy.train: {use: {corpus: [once]}}\n  - toy.dedup: {as: twice, use: {corpus: once}}\n"
    )
    left = without(recipe, "once")
    assert [step.use for step in left.stages] == [{}, {"corpus": ["a"]}, {"corpus": "a"}]
    assert told(lambda: without(recipe, "toy.dedup")) == message(
        "'toy.dedup' names several stages", "--without toy.dedup", expected="one of once, twice"
    )
    assert "did you mean 'toy.dedup'?" in told(lambda: without(load(), "toy.dedupe"))
    assert "only stage" in told(lambda: without(load(text="stages: [toy.dedup]"), "toy.dedup"))


# Writing


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "lr: 1e-5, steps: 7, prompt: 'no'",
        "prompt: '1e-3', momentum: 1e20",
        "prompt: 'むかし：「物語」'",
        'prompt: "a\\tb\\nc \\\\ \' \\" \\u200b\\U0001F600"',
        "prompt: '*.txt'",
        "prompt: '　'",
        "time: 1h30m, method: {lora: {rank: 16, targets: [q, v], 深さ: ~}}",
        "share: 0.25, as: 本番",
    ],
)
def test_what_is_written_is_read_back(settings: str) -> None:
    recipe = load(settings)
    Path("back.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    back = load_recipe("back.yaml")
    assert (back.name, back.budget, back.seed, back.stages) == (
        recipe.name,
        recipe.budget,
        recipe.seed,
        recipe.stages,
    )


def test_an_explicit_null_is_written() -> None:
    recipe = load(text="stages: [{toy.read: {path: a, heldout: null}}]")
    Path("back.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe("back.yaml").stages == recipe.stages
    assert "columns" not in dump_recipe(recipe)


def test_a_trap_in_set_is_the_same_trap() -> None:
    assert told(lambda: load("", "path=*.txt")) == message(
        "an unquoted '*': in YAML this is an alias, not text",
        "--set path=*.txt",
        "*.txt",
        "",
        "quote it: '*.txt'",
    )
    assert "(column 2 of the value)" in told(lambda: load("", "formats=[*x]"))


def test_no_text_at_all() -> None:
    for content in (b"\x00\x01binary", "stages".encode("utf-16"), b"x: " + b"y" * (1 << 20)):
        Path("data.bin").write_bytes(content)
        assert "this is no recipe" in told(lambda: load_recipe("data.bin"))
    Path("sjis.yaml").write_bytes("name: x\n# 小説\n".encode("cp932"))
    text = told(lambda: load_recipe("sjis.yaml"))
    assert text == message(
        "the recipe is not UTF-8", "sjis.yaml:2", "the byte 0x8f", "", "save it as UTF-8 in your editor"
    )
    assert "nested too deeply" in told(lambda: read_text("[" * 5000, "r"))
    assert "control character" in told(lambda: read_text("a: \x01", "r"))


def test_a_missing_recipe_names_its_neighbours() -> None:
    Path("quickstart.yaml").write_text("stages: []")
    text = told(lambda: load_recipe("quikstart.yaml"))
    assert "no such recipe" in text and "did you mean 'quickstart.yaml'?" in text
    assert "did you mean 'quickstart.yaml'?" in told(lambda: load_recipe("quickstart"))
    Path("folder").mkdir()
    Path("folder/a.yaml").write_text("")
    assert "this is a folder" in told(lambda: load_recipe("folder"))


def test_a_recipe_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        load_recipe("r.yaml")


def test_plugins_of_others_need_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from kogata.core.stage import Stage\nfrom kogata.core.artifact import Kind\n"
        "class Mine(Stage):\n    '''Does mine.'''\n    makes = Kind.CORPUS\n"
        "def register(registry):\n    registry.add_stage('mine.own', Mine)\n"
    )
    path = folder / "r.yaml"
    path.write_text("plugins: [mine.py]\nstages: [mine.own]\n")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    text = told(lambda: load_recipe(path))
    assert text.startswith("the recipe is from elsewhere and wants to run code of its own")
    assert f"{path}:1:10 (plugins)" in text and "--allow-plugins" in text
    recipe = load_recipe(path, allow_plugins=True)
    assert recipe.plugins == ("mine.py",) and recipe.stages[0].name == "mine.own"
    assert with_settings(recipe, {}).plugins == ("mine.py",)
    monkeypatch.chdir(folder)
    assert load_recipe("r.yaml").stages[0].name == "mine.own"


def test_a_broken_installed_plugin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no module named their_base")

    monkeypatch.setattr(registry, "load_installed", fail)
    draft.load_installed_plugins.cache_clear()
    assert "no module named their_base" in told(load)
    draft.load_installed_plugins.cache_clear()


def test_a_full_width_colon_after_a_key_is_named_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name： a\nstages:\n  - data.read: {path: x}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "r.yaml:1:5" in str(caught.value)
    assert "：" in str(caught.value)
