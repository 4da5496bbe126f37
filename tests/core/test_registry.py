"""The registry: names from files, plug-ins, and what was probably meant."""

from pathlib import Path

import pytest

from kogata.core.errors import RecipeError
from kogata.core.registry import Registry, suggest

PLUGIN = '''
from kogata.core.stage import Stage
from kogata.core.artifact import Kind

class Mine(Stage):
    """Does mine."""
    makes = Kind.CORPUS

def register(registry):
    registry.add_stage("data.mine", Mine)
    registry.add_variant("nn.ffn", "mine", Mine)
'''


@pytest.mark.parametrize(
    ("word", "meant"), [("learning_rate", "lr"), ("stpes", "steps"), ("Steps", "steps"), ("xyzzy", None)]
)
def test_suggestions_know_slips_and_peers_names(word: str, meant: str | None) -> None:
    assert suggest(word, ["lr", "steps", "batch"]) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("n_layer", "layers"),
        ("n_embd", "width"),
        ("hidden_size", "width"),
        ("num_key_value_heads", "kv_heads"),
    ],
)
def test_peers_names_of_a_models_shape_are_known(word: str, meant: str) -> None:
    assert suggest(word, ["family", "layers", "width", "heads", "kv_heads", "ffn_width"]) == meant


def test_an_unknown_stage_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'data.read'"):
        Registry().stage("data.raed")


def test_a_plugin_registers_by_name(tmp_path: Path) -> None:
    file = tmp_path / "my_plugin.py"
    file.write_text(PLUGIN)
    registry = Registry()
    registry.load_plugin(file)
    registry.load_plugin(file)
    assert registry.stage("data.mine").__name__ == "Mine"
    assert "mine" in registry.variant_names("nn.ffn")
    assert registry.plugin_files["data.mine"] == file.resolve()


@pytest.mark.parametrize(
    ("source", "message"),
    [("x = ", "does not load"), ("x = 1", "registers nothing"), (None, "no such plug-in")],
)
def test_a_bad_plugin_is_named(tmp_path: Path, source: str | None, message: str) -> None:
    file = tmp_path / "bad.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(RecipeError, match=message):
        Registry().load_plugin(file)


def test_a_plugin_cannot_take_our_names(tmp_path: Path) -> None:
    file = tmp_path / "taken.py"
    file.write_text(PLUGIN.replace("data.mine", "data.read"))
    with pytest.raises(RecipeError, match="already exists"):
        Registry().load_plugin(file)
