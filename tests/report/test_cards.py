"""Cards: the docstring's sections and every setting with type, default and description."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from kogata.core.amounts import Seconds
from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.report.cards import all_cards, as_recipe, card_of, parse_card, settings_of

DOCSTRING = """Drops copies.

    Compares documents by their content,
    not by their names.

    日本語も同じように扱う。

    Pays when: the text was collected
        from several places.
    Hurts when: never seen: it costs a pass.
    Cost: one pass.
    Source: Broder 1997: https://example.org
    Measured here: not yet measured.
    """


def test_splits_a_docstring_into_its_sections() -> None:
    summary, body, sections = parse_card(DOCSTRING)
    assert summary == "Drops copies."
    assert body == "Compares documents by their content, not by their names.\n\n日本語も同じように扱う。"
    assert sections["Pays when"] == "the text was collected from several places."
    assert sections["Hurts when"] == "never seen: it costs a pass."
    assert list(sections) == ["Pays when", "Hurts when", "Cost", "Source", "Measured here"]


class Inner(BaseModel):
    family: Literal["qwen3", "llama"] = Field(default="qwen3", description="graph")
    parameters: int | Literal["auto"] = Field(default="auto", description="how many")


class Outer(BaseModel):
    """Settings for the tests below."""

    path: str = Field(description="which file")
    lr: float = Field(1e-3, gt=0, le=1, description="step size")
    time: Seconds | None = Field(None, description="how long")
    names: list[str] = Field(default_factory=lambda: ["a", "b c"], description="some\nnames")
    model: Inner = Field(Inner(), description="the model")
    keep: bool = True


def test_every_setting_has_type_default_and_description() -> None:
    found = {item.name: item for item in settings_of(Outer)}
    assert list(found) == ["path", "lr", "time", "names", "model", "model.family", "model.parameters", "keep"]
    assert found["path"].default is None and found["path"].type == "text"
    assert (found["lr"].type, found["lr"].default) == ("number > 0 and ≤ 1", "0.001")
    assert (found["time"].type, found["time"].default) == ("time", "null")
    assert (found["names"].type, found["names"].default) == ("list of text", "[a, b c]")
    assert found["names"].description == "some names"
    assert found["model"].type == "settings"
    assert (found["model.family"].type, found["model.family"].default) == ("qwen3 or llama", "qwen3")
    assert found["model.parameters"].type == "integer or auto"
    assert found["keep"].type == "true or false"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0.02, "0.02"), ("auto", "auto"), ("null", '"null"'), ("", '""'),
     ("a: b", '"a: b"'), ([1, "x"], "[1, x]"), ({"rank": 8}, "{rank: 8}"), ("むかし、", '"むかし、"')],
)  # fmt: skip
def test_values_are_written_as_in_a_recipe(value: object, text: str) -> None:
    assert as_recipe(value) == text


def test_every_stage_has_a_card() -> None:
    names = registry.stage_names()
    cards = all_cards()
    assert [card.name for card in cards] == names
    for card in cards:
        assert card.summary and card.makes, card.name
        assert all(item.description for item in card.settings), card.name


def test_an_unknown_stage_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="data.read"):
        card_of("data.raed")


def test_a_variant_has_a_card_of_its_own() -> None:
    card = card_of("train.pretrain.curriculum.easy_first")
    assert "easiest text" in card.summary and {"Pays when", "Hurts when", "Measured here"} <= set(
        card.sections
    )
    assert {"by", "start", "until"} <= {item.name for item in card.settings} and not card.makes
    inner = card_of("train.pretrain.curriculum.easy_first.by.rarity")
    assert "rare words" in inner.summary and not inner.settings
    plain = card_of("data.select.method.dsir")
    assert plain.body and [item.name for item in plain.settings] == ["ngram", "buckets", "grams"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train.pretrain.curriculum", "curriculum.easy_first"),
        ("train.pretrain.lr.fast", "one of curriculum, sampling"),
        ("train.pretrain.sampling.bandits", "did you mean 'bandit'"),
        ("tokenizer.encode.columns.a", "choose no variants"),
    ],
)
def test_an_address_that_leads_nowhere_says_what_would(name: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        card_of(name)
    assert told in str(caught.value) or told in (caught.value.expected or "")


def test_a_variant_is_shown() -> None:
    from io import StringIO

    from rich.console import Console

    from kogata.report.tables import card_view

    shown = StringIO()
    Console(file=shown, width=120).print(card_view(card_of("train.pretrain.sampling.infobatch")))
    assert (
        "hurts when" in shown.getvalue() and "prune" in shown.getvalue() and "makes" not in shown.getvalue()
    )
