"""Leaves out what is in another language than those named, or in none for sure.

The language that data.extract found is believed; text from elsewhere is identified here.

Pays when: text of many languages comes together and the model is for some of them.
Hurts when: documents are a line or two, or mix languages: then the verdict is a guess.
Cost: 0.5 ms a document whose language is not known yet.
Source: py3langid, after Lui and Baldwin 2012 (langid.py).
Measured here: not yet measured.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from kogata.core.variants import VariantSettings
from kogata.engine.filters._family import Check, Family
from kogata.engine.filters._view import View
from kogata.engine.language import check_languages, identify

SECONDS_PER_BYTE = 2e-9
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `language`."""

    keep: list[str] = Field(min_length=1, description="languages that stay (ISO 639-1), for example [en, ja]")
    min_confidence: float = Field(
        default=0.65, ge=0, le=1, description="probability of the language, at least (0 to 1)"
    )

    @field_validator("keep")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        check_languages(value, "data.filter.rules.language.keep")
        return value


def family(settings: Settings) -> Family:
    """Gives the one rule."""

    def value(view: View) -> str | None:
        language, confidence = view.meta.get("language"), view.meta.get("language_confidence", 1.0)
        if not isinstance(language, str):
            language, confidence = identify(view.text)
        if language in settings.keep and confidence >= settings.min_confidence:
            return None
        return f"{language} {confidence:.2f}"

    return Family(checks=[Check(f"language.keep {' '.join(settings.keep)}", value)])
