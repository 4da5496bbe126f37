"""Amounts with units: budget, cost, forecast. A bare number is never a quantity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

_TIME = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_ENERGY = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\s*([A-Za-z]+)")


def _parse(text: Any, units: Mapping[str, float], what: str, example: str) -> float:
    if isinstance(text, bool) or not isinstance(text, str):
        raise ValueError(f"found the bare value {text!r}; {what} needs a unit, for example {example}")
    total, at = 0.0, 0
    lowered = {key.lower(): value for key, value in units.items()}
    while at < len(text.rstrip()):
        part = _PART.match(text, at)
        if not part:
            raise ValueError(f"found {text!r}; {what} is a number with a unit, for example {example}")
        number, unit = part.groups()
        factor = units.get(unit, lowered.get(unit.lower()))
        if factor is None:
            raise ValueError(f"unknown unit {unit!r} in {text!r}; units of {what}: {', '.join(units)}")
        total += float(number) * factor
        at = part.end()
    if at == 0 or total <= 0:
        raise ValueError(f"found {text!r}; {what} must be more than nothing, for example {example}")
    return total


def parse_seconds(text: Any) -> float:
    """Reads `90s`, `5min`, `1h30m` as seconds; raises ValueError for a bare number or unknown unit."""
    return _parse(text, _TIME, "a time", "'90s', '5min' or '1h30m'")


def parse_bytes(text: Any) -> int:
    """Reads `4GiB`, `100MB` as bytes; raises ValueError for a bare number or unknown unit."""
    return int(_parse(text, _BYTES, "an amount of bytes", "'4GiB' or '100MB'"))


def parse_joules(text: Any) -> float:
    """Reads `20kJ`, `5Wh` as joules; raises ValueError for a bare number or unknown unit."""
    return _parse(text, _ENERGY, "an energy", "'20kJ' or '5Wh'")


def format_seconds(seconds: float | None) -> str:
    """Writes seconds as people read them: `0.42s`, `12.3s`, `4min05s`, `1h30min`; `–` when unmeasured."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.2f}s" if seconds < 10 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}min{whole % 60:02d}s" if whole % 60 else f"{whole // 60}min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}min" if minutes % 60 else f"{minutes // 60}h"


def format_bytes(amount: float | None) -> str:
    """Writes bytes with a binary unit: `812B`, `3.1KiB`, `2.40GiB`; `–` when unmeasured."""
    if amount is None:
        return "–"
    value, unit = float(amount), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, bigger
    return (
        f"{value:.0f}{unit}" if unit == "B" else f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"
    )


def format_joules(joules: float | None) -> str:
    """Writes joules: `830J`, `2.4kJ`, `1.1MJ`; `–` when unmeasured."""
    if joules is None:
        return "–"
    value, unit = float(joules), "J"
    for bigger in ("kJ", "MJ", "GJ"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.3g}{unit}"


def format_count(count: float | None) -> str:
    """Writes a count: `812`, `3.1k`, `2.40M`, `1.2G`; `–` when unmeasured."""
    if count is None:
        return "–"
    value, unit = float(count), ""
    for bigger in ("k", "M", "G", "T", "P"):
        if abs(value) < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.3g}{unit}"


def counted(count: int, noun: str) -> str:
    """Writes a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def exact_seconds(seconds: float) -> str:
    """Writes seconds so that `parse_seconds` gives the same number back."""
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= factor and seconds % factor == 0:
            return f"{int(seconds / factor)}{unit}"
    return f"{seconds:.12g}s"


def exact_bytes(amount: int) -> str:
    """Writes bytes so that `parse_bytes` gives the same number back."""
    for unit in ("GiB", "MiB", "KiB"):
        if amount >= _BYTES[unit] and amount % _BYTES[unit] == 0:
            return f"{amount // _BYTES[unit]}{unit}"
    return f"{amount}B"


def _amount(parse: Any, pattern: str) -> Any:
    return BeforeValidator(parse), WithJsonSchema({"type": "string", "description": pattern})


Seconds = Annotated[float, *_amount(parse_seconds, "time: 90s, 5min, 1h30m"), PlainSerializer(exact_seconds)]
Bytes = Annotated[int, *_amount(parse_bytes, "bytes: 4GiB, 100MB"), PlainSerializer(exact_bytes)]
Joules = Annotated[
    float, *_amount(parse_joules, "energy: 20kJ, 5Wh"), PlainSerializer(lambda v: f"{v:.12g}J")
]


class Budget(BaseModel):
    """What may be spent. Any part may be absent; what is absent does not bind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: Seconds | None = None
    """Seconds from the start of the process to the report written."""
    memory: Bytes | None = None
    """Peak resident bytes of the process tree."""
    gpu_memory: Bytes | None = None
    energy: Joules | None = None
    """Joules, judged at the high end of the range."""
    size: Bytes | None = None
    """Bytes of the largest single deployable file."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Joules as a range with its source: `measured:nvml`, `measured:rapl` or `modelled:…`."""

    low: float
    high: float
    source: str

    def __add__(self, other: Energy) -> Energy:
        source = self.source if self.source == other.source else f"{self.source}+{other.source}"
        return Energy(low=self.low + other.low, high=self.high + other.high, source=source)

    def scaled(self, factor: float) -> Energy:
        """Gives a part of it, or a multiple."""
        return Energy(low=self.low * factor, high=self.high * factor, source=self.source)

    def __str__(self) -> str:
        return f"{format_joules(self.low)}–{format_joules(self.high)} ({self.source})"


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _largest(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else max(a, b)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was or will be spent. Seconds, joules, tokens, FLOPs add; peak takes the maximum; size the last.

    Unmeasured is None, never 0.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    joules: Energy | None = None
    tokens: int | None = None
    flops: float | None = None
    peak_bytes: int | None = None
    size_bytes: int | None = None

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            seconds=_sum(self.seconds, other.seconds),
            cpu_seconds=_sum(self.cpu_seconds, other.cpu_seconds),
            joules=_sum(self.joules, other.joules),
            tokens=_sum(self.tokens, other.tokens),
            flops=_sum(self.flops, other.flops),
            peak_bytes=_largest(self.peak_bytes, other.peak_bytes),
            size_bytes=self.size_bytes if other.size_bytes is None else other.size_bytes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(parts: Mapping[str, Any]) -> Cost:
        """Reads what `to_dict` wrote."""
        values = dict(parts)
        if values.get("joules"):
            values["joules"] = Energy(**values["joules"])
        return Cost(**values)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a stage will make and spend, stated before it runs."""

    facts: dict[str, Any] = field(default_factory=dict)
    """The facts of the artifact that will be made, threaded to the next stage's forecast."""
    cost: Cost = field(default_factory=Cost)
    disk_bytes: int = 0
    """Bytes the artifact and its partial work take on disk."""
    seal_seconds: float = 0.0
    """The part of the cost that writes the artifact; saved where a fused neighbour takes the documents."""
    advice: str = ""
    """What would fit, where this does not fit the memory budget."""

    def fused(self) -> Forecast:
        """Takes out what writing would cost, for a stage whose documents go straight to the next."""
        cost, less = self.cost, self.seal_seconds
        if not less or not cost.seconds:
            return self
        cpu = None if cost.cpu_seconds is None else max(0.0, cost.cpu_seconds - less)
        joules = None if cost.joules is None else cost.joules.scaled(max(0.0, 1 - less / cost.seconds))
        left = replace(cost, seconds=max(0.0, cost.seconds - less), cpu_seconds=cpu, joules=joules)
        return replace(self, cost=left, disk_bytes=0, seal_seconds=0.0)
