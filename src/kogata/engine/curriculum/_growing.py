"""Settings of the ways that begin on one end of the text and let more and more of it in."""

from __future__ import annotations

from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.curriculum._difficulty import Difficulty


class Growing(VariantSettings):
    """What makes text hard, and how the part that is drawn from grows, in a line."""

    by: Difficulty = Field(
        default_factory=lambda: Difficulty.of("compressibility"), description="what makes text hard"
    )
    start: float = Field(default=0.2, gt=0, le=1, description="share of the text drawn from at the beginning")
    until: float = Field(
        default=0.7, gt=0, le=1, description="share of training after which all text is drawn from"
    )

    def share(self, progress: float) -> float:
        """Gives the share of the text drawn from at a moment of training, itself a share."""
        return self.start + (1 - self.start) * min(1.0, progress / self.until)
