"""Leaves out documents whose words are oddly rare, oddly common or oddly even for their language.

How often each word occurs in the corpus gives every document a mean and a deviation of log frequency. A
document is as odd as the larger of its distances from the medians, in median deviations. No labels, no
model; characters stand for words where no spaces part them.

Pays when: the corpus has noise and nobody can name good text.
Hurts when: the rare kind of text is the wanted one: it is the first to go.
Cost: about 20 s for 100 MB on one core, and the first 32 MB twice.
Source: Prior-based noisy text data filtering, 2025 (arXiv 2509.18577).
Measured here: did not pay on a corpus of many kinds, with keep at 0.8:
    16.8% [filters.json:arms.prior.clean:.1%] of the bytes of clean text went, and
    14.1% [filters.json:arms.prior.junk:.1%] of junk's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.artifact import Document
from kogata.core.variants import VariantSettings
from kogata.engine.filters._family import Check, Family
from kogata.engine.filters._view import View

if TYPE_CHECKING:
    import numpy as np

LEAST = 30
"""Documents of a language below which none of them is judged."""
BUCKETS = 2**20

SECONDS_PER_BYTE = 2e-7
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `prior`."""

    keep: float = Field(default=0.8, gt=0, lt=1, description="share of each language's documents that stays")


def learned(settings: Settings, sample: Sequence[Document]) -> Family:
    """Counts words in a sample and finds, language by language, how odd is too odd."""
    groups: dict[str, list[np.ndarray]] = {}
    for document in sample:
        view = View(document.text, document.meta)
        buckets = _buckets(view.text)
        if len(buckets):
            groups.setdefault(view.language, []).append(buckets)
    models = {
        language: _Language(documents, settings.keep)
        for language, documents in groups.items()
        if len(documents) >= LEAST
    }

    def value(view: View) -> str | None:
        model = models.get(view.language)
        if model is None:
            return None
        oddity, mean, deviation = model.judge(_buckets(view.text))
        if oddity <= model.most:
            return None
        return f"{oddity:.2f} (mean {mean:.2f}, deviation {deviation:.2f})"

    return Family(checks=[Check(f"prior.keep {settings.keep:g}", value)])


def _buckets(text: str) -> np.ndarray:
    import numpy as np

    from kogata.engine.ngrams import units_of

    return (units_of([text])[0] % np.uint64(BUCKETS)).astype(np.int32)


class _Language:
    """Word frequencies of one language, and where its documents lie."""

    def __init__(self, documents: list[np.ndarray], keep: float) -> None:
        import numpy as np

        counts = np.bincount(np.concatenate(documents), minlength=BUCKETS)
        self._log = np.log((counts + 1) / (counts.sum() + BUCKETS)).astype(np.float32)
        places = np.array([self._place(buckets) for buckets in documents])
        self._middle = np.median(places, axis=0)
        self._spread = np.maximum(np.median(np.abs(places - self._middle), axis=0), 1e-9)
        oddities = (np.abs(places - self._middle) / self._spread).max(axis=1)
        self.most = float(np.quantile(oddities, keep))

    def _place(self, buckets: np.ndarray) -> tuple[float, float]:
        logs = self._log[buckets]
        return float(logs.mean()), float(logs.std())

    def judge(self, buckets: np.ndarray) -> tuple[float, float, float]:
        """Gives how odd a document is, its mean and its deviation."""
        import numpy as np

        if not len(buckets):
            return float("inf"), 0.0, 0.0
        place = self._place(buckets)
        return float((np.abs(np.array(place) - self._middle) / self._spread).max()), *place
