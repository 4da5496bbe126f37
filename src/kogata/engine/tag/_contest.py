"""Judges taggers by the F1 of whole spans, on rows they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kogata.engine.classify._contest import Contest, Entry
from kogata.engine.tag._scores import lead, mixed_up, scores
from kogata.engine.tag._task import Row


class TagContest(Contest):
    """Trains and judges taggers, keeps the best."""

    MEASURE: ClassVar[str] = "f1"
    AHEAD: ClassVar[str] = "points of F1 above"

    def confused(self, entry: Entry) -> list[Any]:
        """Lists what goes wrong most often: marked, found, times."""
        return mixed_up(*self._judged(entry.name))

    def _guess(self, made: Any, held: Any) -> list[Any]:
        return [[list(span[:3]) for span in found] for found in made.mark(held.rows)]

    def _truth(self, task: Any) -> list[Row]:
        return list(task.rows)

    def _scores(self, truth: list[Row], guesses: list[Any]) -> dict[str, Any]:
        return scores(truth, guesses, self.task.scheme)

    def _lead_of(self, truth: list[Row], first: list[Any], second: list[Any]) -> tuple[float, float]:
        return lead(truth, first, second)

    def _said(self, shown: Mapping[str, Any]) -> str:
        return (
            f"F1 {100 * shown['f1']:.1f} ± {100 * shown['standard_error']:.1f} %, precision "
            f"{100 * shown['precision']:.1f} %, recall {100 * shown['recall']:.1f} % of {shown['spans']:,} "
            f"spans in {shown['n']:,} {shown['judged_on']} rows"
        )
