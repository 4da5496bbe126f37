"""The YAML reader and writer: what words mean, what is a trap, and that all that is written is read back."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kogata.core.errors import RecipeError
from kogata.runtime.yaml_text import read_text, read_value, write_yaml

# Scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1e5", 1e5), (".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("+1", 1), ("1_000", 1000),
        ("0x10", 16), ("0o17", 15), ("0", 0), ("0.5", 0.5), ("007", "007"), ("no", "no"), ("yes", "yes"),
        ("on", "on"), ("Off", "Off"), ("NO", "NO"), ("y", "y"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"),
        (".inf", ".inf"), (".nan", ".nan"),
        ("1e400", "1e400"), ("1.2.3", "1.2.3"), ("5min", "5min"), ("'1'", "1"), ('"no"', "no"), ("1M", "1M"),
        ("[a, 1e-3]", ["a", 0.001]), ("{a: no}", {"a": "no"}), ("列１", "列１"), ("a、b", "a、b"),
        ("novels/*.txt", "novels/*.txt"), ("C:\\x", "C:\\x"), ("https://x.org/a", "https://x.org/a"),
        ("[むかし、, ある朝]", ["むかし、", "ある朝"]), ("Ａ社", "Ａ社"),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    read = read_value(text, "--set x")
    assert read == value and type(read) is type(value)


# Traps of YAML

INDENT = "check the indentation of this line and the one above; put text that contains ': ' in double quotes"


def wide(instead: str) -> str:
    return f"type {instead}; if it is part of a text, put the whole text in double quotes"


WIDE = "a full-width character where YAML needs a half-width one"


@pytest.mark.parametrize(
    ("text", "what", "at", "remedy"),
    [
        ("path: *.txt", "an unquoted '*': in YAML this is an alias, not text", "1:7", "quote it: '*.txt'"),
        ("a: [*x, b]", "an unquoted '*': in YAML this is an alias, not text", "1:5", "quote it: '*x'"),
        ("a: %x", "an unquoted '%': YAML keeps this sign for itself", "1:4", "quote it: '%x'"),
        ("a: @x  # c", "an unquoted '@': YAML keeps this sign for itself", "1:4", "quote it: '@x'"),
        ("a: `x`", "an unquoted '`': YAML keeps this sign for itself", "1:4", "quote it: '`x`'"),
        ("a: &x b", "an unquoted '&': in YAML this is an anchor, not text", "1:4", "quote it: '&x b'"),
        ("a: !x b", "an unquoted '!': in YAML this is a tag, not text", "1:4", "quote it: '!x b'"),
        ("a:\n\tb: 1", "a tab where YAML needs spaces", "2:1", "replace each tab by two spaces"),
        ("\ta: 1", "a tab where YAML needs spaces", "1:1", "replace each tab by two spaces"),
        ("lr: 1\nb: 2\nlr: 3", "the key 'lr' stands twice", "3:1", "remove one of the two"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice", "1:11", "remove one of the two"),
        ("<<: {a: 1}", "a merge key '<<' is not used in recipes", "1:1", "write it out"),
        ("name: x\nseed：0\n", WIDE, "2:5", wide("':' and a space")),
        ("seed：0", WIDE, "1:5", wide("':' and a space")),
        ("a:\n  - data.read：{path: x}", WIDE, "2:14", wide("':' and a space")),
        ("a:\n  - export：", WIDE, "2:11", wide("':' and a space")),
        ("a: {lr：1}", WIDE, "1:7", wide("':' and a space")),
        ("a: b\n  c：d", WIDE, "2:4", wide("':' and a space")),
        ("a: [hf，gguf]", WIDE, "1:7", wide("','")),
        ("a: [hf、gguf]", WIDE, "1:7", wide("','")),
        ("a: ｛b: 1｝", WIDE, "1:4", wide("'{'")),
        ("a: 1 ＃ c", WIDE, "1:6", wide("'#'")),
        ("a: ５min", "full-width digits or letters where half-width ones are needed", "1:4",
         "type 5min; if it is meant as text, put it in double quotes"),
        ("a: 0.０２", "full-width digits or letters where half-width ones are needed", "1:6",
         "type 0.02; if it is meant as text, put it in double quotes"),
        ("ｓｅｅｄ: 0", "a key in full-width letters", "1:1",
         "type seed; if it is meant so, put it in double quotes"),
        ("{lr:0.02}", "no space after ':'", "1:4",
         "put a space after the ':'; if it is meant as text, put it in double quotes"),
        ("seed:0", "no space after ':'", "1:5",
         "put a space after the ':'; if it is meant as text, put it in double quotes"),
        ("a: b: c", "a ':' where no setting can begin", "1:5", INDENT),
        ("a: {b: 1\nc: 2", "a '{' that is not closed, or a missing comma", "1:4",
         "close it, or put ',' between the entries"),
        ("a: 'x", "a quote is not closed", "1:4", "close it"),
        ("- a\nb: 1", "the indentation does not match the lines above", "2:1",
         "begin every entry of one list or mapping in the same column"),
        ("a: 1\n---\nb: 2", "a second document begins", "2:1", "a recipe is one document: remove the '---'"),
    ],
)  # fmt: skip
def test_traps_are_refused_with_place_and_remedy(text: str, what: str, at: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_text(text, "小説.yaml")
    error = caught.value
    assert (error.what, error.where, error.remedy) == (what, f"小説.yaml:{at}", remedy)


@pytest.mark.parametrize(
    ("text", "at"),
    [("　seed: 0", "1:1"), ("seed:　0", "1:6"), ("name: x\nseed:　0", "2:6"), ("a: x　# c", "1:5"),
     ("- 　a: 1", "1:3"), ("-　a: 1", "1:2"), ("a: x　", "1:5"), ("a: 1\n\u00a0b: 2", "2:1")],
)  # fmt: skip
def test_wide_spaces_are_refused(text: str, at: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_text(text, "r.yaml")
    assert caught.value.where == f"r.yaml:{at}"
    assert caught.value.what.endswith("where YAML needs a space")
    assert "U+3000" in str(caught.value.found) or "U+00A0" in str(caught.value.found)


# Writing


def test_japanese_stays_readable_and_traps_are_quoted() -> None:
    assert write_yaml(
        {"a": "問い合わせ", "b": "no", "c": "1e-3", "d": "5min", "e": ["ｱ", "*"], "f": "１"}
    ) == ('a: 問い合わせ\nb: "no"\nc: "1e-3"\nd: 5min\ne: ["ｱ", "*"]\nf: "１"\n')


def test_any_text_comes_back() -> None:
    dice = random.Random(0)
    letters = "ab0189._-+eE:,#'\"\\ \t\n*&!%@`{}[]|>?~=<あ：，、　｛０“”\u200b\u0085\u2028é\ufeffnyt/"
    for _ in range(600):
        text = "".join(dice.choice(letters) for _ in range(dice.randint(0, 7)))
        value = {"k": text, "l": [text, {text or "x": text}]}
        assert read_text(write_yaml(value), "t").value == value, repr(text)
    for number in (1e-5, 1e16, 123456789.123, -0.0, 5e-324, 10**20, -3, True, None):
        assert read_text(write_yaml({"k": number}), "t").value == {"k": number}
