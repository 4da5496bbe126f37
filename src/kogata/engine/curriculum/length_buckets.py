"""Cuts every document into pieces whose lengths are powers of two and trains on one length at a time.

No window crosses from one document into another, so positions and attention are those of the document
alone, and a short piece pays for no long window. A document's pieces follow its length in binary, longest
first, up to the context; what is left below `shortest` is trained with the text before it, so no token is
lost. Each step has pieces of one length; with `tilt` the short lengths come sooner and the long ones later,
`cycles` times over training.

Pays when: documents are much shorter than the context, or of all lengths at long contexts.
Hurts when: documents are books: nearly all pieces are then as long as the context, and nothing is gained.
Cost: 17 bytes a piece; the last piece of a document is partly computed twice.
Source: Dataset Decomposition, Pouransari et al. 2024 (arXiv 2405.13226).
Measured here: 18 s of training at context 512, five seeds, beside full_length: -0.006
[curriculum.json:table.length.length_buckets.difference.mean:+.3f] bits per byte (95%: -0.013
[curriculum.json:table.length.length_buckets.difference.low:+.3f] to +0.000
[curriculum.json:table.length.length_buckets.difference.high:+.3f]), no difference shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply

PARTLY_COUNTED = True
"""Rows have targets that do not count."""


class Settings(VariantSettings):
    """Settings of `length_buckets`."""

    shortest: int = Field(default=32, ge=8, description="tokens of the shortest piece")
    tilt: float = Field(
        default=1.0,
        ge=0,
        le=5,
        description="how much sooner short pieces come than long ones; 0 mixed",
    )
    cycles: int = Field(default=1, ge=1, le=100, description="how often training goes from short to long")


def make(supply: Supply, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.curriculum._buckets import Buckets

    return Buckets(supply, settings.shortest, settings.tilt, settings.cycles)
