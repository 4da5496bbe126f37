"""Leaves out documents that look least like texts the user names, or like edited text that comes with Kogata.

Logistic regression on hashed words and pairs of words (characters and runs of 2 and 3 where no spaces part
them) tells the named texts from the corpus itself; the share `keep` that looks most like them stays. What
judges a document learned from the other half of the corpus. Where no texts are named: pieces of novels,
speeches, manuals and Japanese stories, English and Japanese in the corpus's own proportion; documents in
other languages are then not judged.

Pays when: there is text of the kind the model is for, and more corpus than can be trained on.
Hurts when: the named text is narrower than the use: encyclopedias as positives hurt in DataComp-LM.
    What comes with Kogata is prose and manuals of old: it takes chat, lists and code.
Cost: about 30 s for 100 MB on one core, and learning on the first 32 MB.
Source: Li et al. 2024, DataComp-LM (arXiv 2406.11794), section 4.4; Joulin et al. 2017 (fastText).
Measured here: with the texts that come with Kogata and keep at 0.7,
    17.9% [filters.json:arms.classifier.clean:.1%] of the bytes of clean text went, nearly
    all of them a Japanese manual's, and 52.7% [filters.json:arms.classifier.junk:.1%] of junk's:
    raw HTML, and characters in random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.stage import InputPath
from kogata.core.variants import VariantSettings
from kogata.engine.filters._family import Check, Family
from kogata.engine.filters._view import View

if TYPE_CHECKING:
    import numpy as np

PIECE = 2_000
"""Characters of a piece that the classifier learns from."""
PIECES = 4
"""Pieces of one document of the corpus that are learnt from, and looked at when it is judged."""
MOST_PIECES = 20_000
"""Pieces of each kind learnt from."""
LEAST_PIECES = 20
BUCKETS = 2**18

SECONDS_PER_BYTE = 3e-7
"""Of English text on one core; also the order in which families look."""


class Settings(VariantSettings):
    """Settings of `classifier`."""

    positives: InputPath | list[InputPath] | None = Field(
        default=None,
        description="texts as the model should read: file, folder, pattern, or a list of these; by default "
        "edited text that comes with Kogata, English and Japanese",
    )
    column: str | None = Field(default=None, description="which column holds the text, for tables")
    keep: float = Field(default=0.3, gt=0, lt=1, description="share of documents that stays")
    passes: int = Field(default=5, ge=1, description="passes over the pieces in learning")


def learned(settings: Settings, sample: Sequence[Document]) -> Family:
    """Learns from the named texts and a sample of the corpus, and finds the score that keeps the share.

    Raises:
        DataError: the named texts are too few to learn from.
    """
    import numpy as np

    from kogata.engine.filters._texts import EDITED, edited_texts, texts_of

    where = "data.filter.rules.classifier.positives"
    judged = list(sample)
    languages: frozenset[str] | None = None
    if settings.positives is None:
        spoken = [View(document.text, document.meta).language for document in sample]
        named = edited_texts(spoken, where)
        languages = frozenset([*EDITED, "und"])
        judged = [document for document, told in zip(sample, spoken, strict=True) if told in languages]
    else:
        named = list(texts_of(settings.positives, settings.column, where))
    good = [piece for text in named for piece in _pieces(text, MOST_PIECES)]
    # Every document is judged by what was learned without it, or it would be told by its own words.
    halves: list[list[str]] = [[], []]
    for document in judged:
        halves[_half(document.text)] += _pieces(document.text)
    rest = halves[0] + halves[1]
    if min(len(good), len(rest)) < LEAST_PIECES:
        raise DataError(
            "too little text to learn a classifier from",
            where=where,
            found=f"{len(good)} pieces of {PIECE} characters named, {len(rest)} of the corpus",
            expected=f"at least {LEAST_PIECES} of each",
            remedy="name more texts, or leave the rule classifier out",
        )
    likely = _spread(good)
    models = [_Logistic([likely, _spread(halves[1 - half] or rest)], settings.passes) for half in (0, 1)]

    def judge(text: str) -> float:
        return models[_half(text)].score(text)

    scores = np.array([judge(document.text) for document in judged])
    least = float(np.quantile(scores, 1 - settings.keep))

    def value(view: View) -> float | None:
        if languages is not None and view.language not in languages:
            return None
        score = judge(view.text)
        return None if score >= least else round(score, 4)

    return Family(checks=[Check(f"classifier.keep {settings.keep:g}", value)])


def _half(text: str) -> int:
    """Deals texts into two halves by what they say."""
    import xxhash

    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) & 1


def _pieces(text: str, most: int = PIECES) -> list[str]:
    """Cuts up to `most` pieces out of a text, evenly spread over it."""
    count = min(most, max(1, len(text) // PIECE))
    step = len(text) // count
    return [piece for at in range(count) if (piece := text[at * step : at * step + PIECE]).strip()]


def _spread(pieces: list[str]) -> list[np.ndarray]:
    """Takes pieces evenly from all, as features."""
    step = max(1.0, len(pieces) / MOST_PIECES)
    chosen = [pieces[int(at * step)] for at in range(min(len(pieces), MOST_PIECES))]
    return [found for found in map(_features, chosen) if len(found)]


def _features(text: str) -> np.ndarray:
    """Gives the different buckets of a text's words and pairs, or characters and runs of 2 and 3."""
    import numpy as np

    from kogata.engine.ngrams import runs_of, units_of
    from kogata.engine.text import spaced

    units, bounds = units_of([text])
    parts = [runs_of(units, bounds, length)[0] for length in range(1, 3 if spaced(text) else 4)]
    return np.unique((np.concatenate(parts) % np.uint64(BUCKETS)).astype(np.int32))


class _Logistic:
    """Logistic regression on buckets that are there or not, each text of length one (AdaGrad)."""

    BATCH = 128
    RATE = 0.5

    def __init__(self, classes: list[list[np.ndarray]], passes: int) -> None:
        import numpy as np

        pieces = [piece for some in classes for piece in some]
        labels = np.concatenate([np.full(len(some), 1.0 - which) for which, some in enumerate(classes)])
        # Both kinds weigh the same, however many there are of each.
        weights = np.concatenate([np.full(len(some), 0.5 / len(some)) for some in classes]) * len(pieces)
        self.weights, self.bias = np.zeros(BUCKETS), 0.0
        squares, bias_square = np.full(BUCKETS, 1e-8), 1e-8
        chance = np.random.default_rng(0)
        for _ in range(passes):
            order = chance.permutation(len(pieces))
            for start in range(0, len(order), self.BATCH):
                batch = order[start : start + self.BATCH]
                sizes = np.array([len(pieces[item]) for item in batch])
                buckets = np.concatenate([pieces[item] for item in batch])
                scale = np.repeat(1 / np.sqrt(sizes), sizes)
                owner = np.repeat(np.arange(len(batch)), sizes)
                margin = np.bincount(owner, self.weights[buckets] * scale, len(batch)) + self.bias
                error = (1 / (1 + np.exp(-margin)) - labels[batch]) * weights[batch] / len(batch)
                slope = np.bincount(buckets, error[owner] * scale, BUCKETS)
                squares += slope**2
                self.weights -= self.RATE * slope / np.sqrt(squares)
                bias_square += error.sum() ** 2
                self.bias -= self.RATE * error.sum() / np.sqrt(bias_square)

    def score(self, text: str) -> float:
        """Gives the mean probability that pieces of a text are like the named ones."""
        import numpy as np

        found = [buckets for buckets in map(_features, _pieces(text)) if len(buckets)]
        if not found:
            return 0.0
        margins = [self.weights[buckets].sum() / np.sqrt(len(buckets)) + self.bias for buckets in found]
        return float(np.mean(1 / (1 + np.exp(-np.array(margins)))))
