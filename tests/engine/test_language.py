"""Languages are told from a few hundred characters, and a false name is refused with the right one."""

from __future__ import annotations

import pytest
from web_archives import JAPANESE, PROSE

from kogata.core.errors import RecipeError
from kogata.engine.language import CODES, check_languages, identify

pytest.importorskip("py3langid")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE, "en"),
        (JAPANESE, "ja"),
        ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。", "zh"),
        ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", "ko"),
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "de"),
        ("Tous les êtres humains naissent libres et égaux en dignité et en droits.", "fr"),
        ("Все люди рождаются свободными и равными в своем достоинстве и правах.", "ru"),
    ],
)
def test_tells_languages(text: str, language: str) -> None:
    found, confidence = identify(text)
    assert found == language and 0.5 < confidence <= 1
    assert identify("Menu " * 30 + text * 20 + " Home" * 30)[0] == language, "the middle decides"


@pytest.mark.parametrize("text", ["", "12 345 — 67 %", "☎☎☎"])
def test_says_so_where_nothing_tells(text: str) -> None:
    assert identify(text) == ("und", 0.0)


def test_the_list_is_the_models() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    labels = set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)
    assert CODES == labels - {"zxx"}


@pytest.mark.parametrize(("name", "meant"), [("jp", "ja"), ("english", "en"), ("EN", "en")])
def test_a_name_that_is_none(name: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean '{meant}'"):
        check_languages(["de", name], "languages")
