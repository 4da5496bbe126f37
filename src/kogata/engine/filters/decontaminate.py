"""Leaves out training documents that share a run of 13 words with an evaluation set.

Words are compared without case, width and marks; in Japanese and Chinese characters, 26 in a run. An
example shorter than a run, but of 8 words or more, is looked for as a whole.

Pays when: a score on that set is to mean anything.
Hurts when: the set quotes what the corpus is made of, such as a famous work.
Cost: about 20 s for 100 MB on one core.
Source: Brown et al. 2020 (arXiv 2005.14165), appendix C.
Measured here: not yet measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.stage import InputPath
from kogata.core.variants import VariantSettings
from kogata.engine.filters._family import Check, Family
from kogata.engine.filters._view import View

if TYPE_CHECKING:
    import numpy as np

SHORTEST = 8
"""Words of the shortest example that is looked for; a shorter one occurs everywhere."""

SECONDS_PER_BYTE = 2e-7
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `decontaminate`."""

    against: InputPath | list[InputPath] = Field(
        description="files of the evaluation sets, or a list of them"
    )
    column: str | None = Field(default=None, description="which column holds the text, for tables")
    words: int = Field(default=13, ge=2, description="words in a run")
    characters: int = Field(default=26, ge=4, description="characters in a run, where no spaces part words")
    max_runs: int = Field(default=0, ge=0, description="runs a document may share and still stay")


def family(settings: Settings) -> Family:
    """Reads the evaluation sets and gives the one rule."""
    import numpy as np

    from kogata.engine.filters._texts import texts_of
    from kogata.engine.ngrams import runs_of, units_of
    from kogata.engine.text import spaced

    parts: dict[int, list[np.ndarray]] = {}
    for text in texts_of(settings.against, settings.column, "data.filter.rules.decontaminate.against"):
        length, least = (settings.words, SHORTEST) if spaced(text) else (settings.characters, 2 * SHORTEST)
        units, bounds = units_of([text])
        if len(units) >= min(length, least):
            length = min(length, len(units))
            parts.setdefault(length, []).append(runs_of(units, bounds, length)[0])
    known = {length: np.unique(np.concatenate(found)) for length, found in parts.items()}

    def value(view: View) -> int | None:
        units, bounds = units_of([view.text])
        found = sum(_shared(runs_of(units, bounds, length)[0], runs) for length, runs in known.items())
        return found if found > settings.max_runs else None

    return Family(checks=[Check(f"decontaminate.max_runs {settings.max_runs}", value)])


def _shared(runs: np.ndarray, known: np.ndarray) -> int:
    import numpy as np

    if not len(runs):
        return 0
    at = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    return int(np.count_nonzero(known[at] == runs))
