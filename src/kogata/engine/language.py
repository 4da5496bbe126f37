"""Language identification of a text: a small model in a package, 137 languages, the same answer every time.

py3langid (BSD-3-Clause; its model comes with the package) is naive Bayes over byte n-grams that it finds in
one walk. It is shown the middle of a text, because pages begin and end with menus.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from kogata.core.errors import EnvironmentProblem, RecipeError
from kogata.core.registry import suggest

SHOWN = 500
"""Characters shown to the model; more gains nothing on running text."""
UNKNOWN = "und"
CODES = frozenset(
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa "
    "fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka "
    "kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om "
    "or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk "
    "ur uz uzs vec vi vo wa wuu xh yo yue zh zu".split()
)
"""Languages the model knows (ISO 639)."""
_MEANT = {
    "jp": "ja", "jpn": "ja", "japanese": "ja", "cn": "zh", "chinese": "zh", "kr": "ko", "korean": "ko",
    "english": "en", "eng": "en", "german": "de", "ger": "de", "french": "fr", "spanish": "es", "nb": "no",
    "russian": "ru", "ua": "uk", "gr": "el", "cz": "cs", "dk": "da", "se": "sv",
}  # fmt: skip


def check_languages(names: Sequence[str], where: str) -> frozenset[str]:
    """Gives languages as a set.

    Raises:
        RecipeError: the model knows no language of that name; suggests the one most likely meant.
    """
    for name in names:
        if name not in CODES:
            near = _MEANT.get(name.lower()) or suggest(name, CODES)
            raise RecipeError(
                f"no language is called {name!r}",
                where=where,
                expected="codes of ISO 639-1 such as en, ja, de",
                remedy=f"did you mean {near!r}?" if near else None,
            )
    return frozenset(names)


@cache
def _model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise EnvironmentProblem(
            "languages cannot be told: py3langid is not installed", remedy="pip install 'kogata[web]'"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """Gives the language of a text (ISO 639) and the probability of it; `und` where nothing tells.

    Raises:
        EnvironmentProblem: py3langid is not installed.
    """
    if len(text) > SHOWN:
        start = (len(text) - SHOWN) // 2
        text = text[start : start + SHOWN]
    if not any(map(str.isalpha, text)):
        return UNKNOWN, 0.0
    language, confidence = _model().classify(text)
    return (language if language in CODES else UNKNOWN), round(float(confidence), 3)
