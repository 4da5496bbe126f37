"""Paired differences with intervals, from a handful of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t at 1 to 30 degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences and its 95 % interval (Student's t); None with one pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)

    def verdict(self, *, lower_is_better: bool) -> str:
        """Says `better`, `worse`, or that the seeds show no difference."""
        if self.low is None or self.high is None:
            return "one seed: no verdict"
        if self.low <= 0.0 <= self.high:
            return "no difference shown"
        return "better" if (self.mean < 0) == lower_is_better else "worse"


def paired(variant: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Gives variant minus baseline over paired seeds."""
    gaps = [a - b for a, b in zip(variant, baseline, strict=True)]
    mean, half = mean_interval(gaps)
    return Difference(
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        pairs=len(gaps),
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Gives the mean and the half width of its 95 % interval; None for one value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    quantile = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    return mean, quantile * math.sqrt(variance / count)
