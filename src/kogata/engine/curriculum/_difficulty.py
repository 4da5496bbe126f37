"""The setting that names a measure of difficulty."""

from __future__ import annotations

from kogata.core.variants import Choice


class Difficulty(Choice, folder="engine.curriculum.difficulty"):
    """What makes text hard."""
