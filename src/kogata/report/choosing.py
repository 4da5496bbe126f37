"""Which variant to choose when time, memory, energy or size counts: what none beats, drawn and in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from kogata.core.amounts import format_bytes, format_joules, format_seconds
from kogata.core.statistics import Difference, mean_interval, paired
from kogata.report import plots
from kogata.report.plots import Spot
from kogata.runtime.compare import MEASURES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = "abcdef"
BASE_LETTER = LETTERS[0]
SAME_COST = 0.02
"""Costs that lie this near each other are called the same, whatever the seeds say."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant of a comparison: the letter it goes by on the page, its name, its values a seed."""

    number: int
    name: str
    values: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        return LETTERS[self.number] if self.number < len(LETTERS) else str(self.number + 1)

    @property
    def colour(self) -> str:
        return COLOURS[self.number % len(COLOURS)]

    def mean(self, measure: str) -> float:
        """Gives the mean over the seeds."""
        return mean_interval(self.values[measure])[0]

    def against(self, other: Variant, measure: str) -> Difference | None:
        """Gives this one's paired difference to another; None where a seed's value is missing."""
        own, others = self.values.get(measure), other.values.get(measure)
        return paired(own, others) if own and others and len(own) == len(others) else None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The measure that variants are judged by, and how its numbers are written."""

    measure: str
    name: str
    lower: bool

    @classmethod
    def of(cls, measure: str | None) -> Quality | None:
        """Gives the quality of a measure's name; None where nothing was scored."""
        name, lower = MEASURES.get(measure or "", ("", None))
        return None if measure is None or lower is None else cls(measure=measure, name=name, lower=lower)

    @property
    def share(self) -> bool:
        """Whether it is a part of a whole, written in per cent."""
        return not self.lower

    def write(self, value: float) -> str:
        """Writes a value."""
        return f"{value:.1%}" if self.share else f"{value:.4f}"

    def gap(self, value: float) -> str:
        """Writes a difference with its sign."""
        return f"{100 * value:+.1f} points" if self.share else f"{value:+.4f}"

    def interval(self, gap: Difference) -> str:
        """Writes a difference's interval; empty with one seed."""
        if gap.low is None or gap.high is None:
            return ""
        if self.share:
            return f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        return f"[{gap.low:+.4f}, {gap.high:+.4f}]"

    def spread(self, values: Sequence[float]) -> str:
        """Writes the mean and the half width of its interval."""
        mean, half = mean_interval(values)
        return self.write(mean) + (f" ± {self.write(half)}" if half is not None else "")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One of the costs that quality is set against."""

    measure: str
    name: str
    write: Callable[[float], str]
    plot: plots.Axis
    note: str = ""


def writer_of(measure: str) -> Callable[[float], str]:
    """Gives the function that writes a measure's values."""
    quality = Quality.of(measure)
    if quality:
        return quality.write
    if measure.endswith("_seconds"):
        return format_seconds
    return format_joules if measure.startswith("joules") else format_bytes


def axes_of(variants: Sequence[Variant], energy_source: str | None) -> list[Axis]:
    """Gives the costs that were measured of every variant: time, memory, energy, size."""

    def measured(measure: str) -> bool:
        return all(measure in variant.values for variant in variants)

    source = (energy_source or "").replace(":", ": ", 1)
    size = "file_bytes" if measured("file_bytes") else "model_bytes"
    size_note = "the largest file to deploy" if size == "file_bytes" else "what training left"
    wanted = (
        (
            "total_seconds",
            "time",
            "all stages, what was reused included",
            plots.clock_ticks,
            plots.clock_text,
        ),
        ("peak_bytes", "memory", "the highest peak of a stage", plots.byte_ticks, format_bytes),
        ("joules_high", "energy", f"{source}, high end", None, None),
        (size, "size", size_note, plots.byte_ticks, format_bytes),
    )
    axes = []
    for measure, name, note, ticks, short in wanted:
        if measured(measure):
            write = writer_of(measure)
            plot = plots.Axis(name=name, write=short or write, ticks=ticks or plots.ticks)
            axes.append(Axis(measure=measure, name=name, write=write, plot=plot, note=note))
    return axes


# Who is ahead


def best_of(variants: Sequence[Variant], quality: Quality | None) -> Variant | None:
    """Gives the variant with the best mean; None where nothing was scored."""
    scored = [variant for variant in variants if quality and quality.measure in variant.values]
    if quality is None or not scored:
        return None
    sign = 1 if quality.lower else -1
    return min(scored, key=lambda variant: sign * variant.mean(quality.measure))


def front(points: Sequence[tuple[float, float]], *, lower: bool) -> list[int]:
    """Gives the places of the points that none beats in cost and quality both, from the cheapest on."""
    sign = 1 if lower else -1
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda at: (points[at][0], sign * points[at][1])):
        if not kept or sign * points[place][1] < sign * points[kept[-1]][1]:
            kept.append(place)
    return kept


def cheaper(one: Variant, other: Variant, axis: Axis) -> bool:
    """Says whether the seeds show that one variant costs less than another, by more than a trifle."""
    gap = one.against(other, axis.measure)
    if gap is None or gap.mean >= -SAME_COST * other.mean(axis.measure):
        return False
    return gap.high is None or gap.high < 0


def as_good(variants: Sequence[Variant], best: Variant, quality: Quality) -> list[Variant]:
    """Gives the variants that are not shown to be worse than the best; with one seed only the best."""
    kept = []
    for variant in variants:
        gap = variant.against(best, quality.measure)
        if gap is None:
            continue
        if gap.low is None:
            same = gap.mean == 0
        else:
            same = gap.verdict(lower_is_better=quality.lower) != "worse"
        kept += [variant] if variant is best or same else []
    return kept


# In words


def advice(
    variants: Sequence[Variant], quality: Quality | None, axes: Sequence[Axis], match: str
) -> list[tuple[str, str]]:
    """Gives what counts and one sentence on what to choose then."""
    best = best_of(variants, quality)
    if quality is None or best is None:
        return [(axis.name, _cheapest_only(variants, axis)) for axis in axes]
    rows = [("quality", _for_quality(variants, best, quality))]
    equals = as_good(variants, best, quality)
    for axis in axes:
        equal = match == "time" and axis.measure == "total_seconds"
        rows.append((axis.name, _for_axis(variants, best, equals, quality, axis, equal)))
    return rows


def _said(variant: Variant) -> str:
    return f"{variant.letter} ({variant.name})"


def _for_quality(variants: Sequence[Variant], best: Variant, quality: Quality) -> str:
    base = variants[0]
    value = quality.write(best.mean(quality.measure))
    if best is base:
        return f"Stay with {_said(best)}: {value}, and no variant did better on average."
    gap = best.against(base, quality.measure)
    if gap is None:
        return f"Take {_said(best)}: {value}."
    verdict = gap.verdict(lower_is_better=quality.lower)
    told = {"better": "better", "no difference shown": "though the seeds do not show that it is better"}
    change = _change(gap, quality)
    return f"Take {_said(best)}: {value}, {change} against {base.letter}, {told.get(verdict, verdict)}."


def _for_axis(
    variants: Sequence[Variant],
    best: Variant,
    equals: Sequence[Variant],
    quality: Quality,
    axis: Axis,
    equal: bool,
) -> str:
    sparing = [variant for variant in equals if cheaper(variant, best, axis)]
    pick = min(sparing, key=lambda variant: variant.mean(axis.measure), default=best)
    worse = [variant for variant in variants if variant not in equals and cheaper(variant, pick, axis)]
    frugal = min(worse, key=lambda variant: variant.mean(axis.measure), default=None)
    cost = axis.write(pick.mean(axis.measure))
    if pick is best and frugal is None:
        dearer = any(cheaper(best, variant, axis) for variant in variants if variant is not best)
        if equal and not dearer:
            return f"It was made equal, so it decides nothing: take {best.letter}, the best."
        least = min(variants, key=lambda variant: variant.mean(axis.measure))
        said = axis.write(least.mean(axis.measure))
        if least.mean(axis.measure) < (1 - SAME_COST) * best.mean(axis.measure):
            return (
                f"Take {_said(best)}, the best, for its {cost}: {least.letter} took {said} on average, "
                "but the seeds do not show that it takes less."
            )
        if not dearer:
            return f"It decides nothing here, all take about {cost}: take {best.letter}, the best."
        return f"Take {_said(best)}: the best, and no variant is shown to take less than its {cost}."
    text = ""
    if pick is not best:
        gap = pick.against(best, quality.measure)
        text = f"Take {_said(pick)}: {_saving(pick, best, axis)}"
        text += f", and not shown to be worse ({_change(gap, quality)})" if gap else ""
    if frugal is not None:
        gap = frugal.against(best, quality.measure)
        change = f"{_change(gap, quality)} against {best.letter}" if gap else "worse quality"
        if text:
            text += (
                f"; {frugal.letter} takes less still, {axis.write(frugal.mean(axis.measure))}, for {change}"
            )
        else:
            text = f"Take {_said(frugal)} if {change} is a fair price: {_saving(frugal, best, axis)}"
            text += f"; else stay with {best.letter}, the best"
    return text + "."


def _cheapest_only(variants: Sequence[Variant], axis: Axis) -> str:
    least = min(variants, key=lambda variant: variant.mean(axis.measure))
    if not any(cheaper(least, variant, axis) for variant in variants):
        return f"It decides nothing here: all take about {axis.write(least.mean(axis.measure))}."
    return f"{_said(least)} takes the least, {axis.write(least.mean(axis.measure))}; quality was not scored."


def _saving(one: Variant, other: Variant, axis: Axis) -> str:
    own, others = one.mean(axis.measure), other.mean(axis.measure)
    return (
        f"{axis.write(own)} instead of {other.letter}'s {axis.write(others)} ({part_text(own / others - 1)})"
    )


def _change(gap: Difference, quality: Quality) -> str:
    interval = quality.interval(gap)
    unit = "" if quality.share else f" {quality.name}"
    return f"{quality.gap(gap.mean)}{f' {interval}' if interval else ''}{unit}"


def part_text(part: float) -> str:
    """Writes a relative change: `−12 %`, `+3.4 %`; beyond that how many times as much."""
    if part >= 1:
        return f"{part + 1:.3g} times"
    digits = 0 if abs(part) >= 0.095 else 1
    return f"{100 * part:+.{digits}f} %".replace("-", "−")


def caution(variants: Sequence[Variant], seeds: Sequence[str], axes: Sequence[Axis]) -> list[str]:
    """Says what the advice rests on."""
    notes = []
    if len(seeds) < 2:
        notes.append("One seed: the advice follows the figures as they are, and chance may have made them.")
    elif len(seeds) < 5:
        notes.append(
            f"With {len(seeds)} seeds intervals are wide: what is not shown to be worse may still be. More "
            "seeds (--seeds 5) tell more, and what was made for these is used again."
        )
    if any(axis.measure == "joules_high" and axis.note.startswith("modelled") for axis in axes):
        notes.append(
            "Energy is modelled from the seconds a stage took and the machine's range of power, so it ranks "
            "as time does."
        )
    return notes


# The picture


def balance_plot(variants: Sequence[Variant], quality: Quality | None, axis: Axis) -> Markup:
    """Draws quality against one cost: each variant with its seeds, and the front of those none beats."""
    scored = [variant for variant in variants if quality and quality.measure in variant.values]
    if quality is None or not scored:
        return Markup("")
    points = [(variant.mean(axis.measure), variant.mean(quality.measure)) for variant in scored]
    spots = []
    for variant, (x, y) in zip(scored, points, strict=True):
        seeds = list(zip(variant.values[axis.measure], variant.values[quality.measure], strict=False))
        spots.append(
            Spot(letter=variant.letter, name=variant.name, colour=variant.colour, x=x, y=y, seeds=seeds)
        )
    write = (lambda value: f"{value:.3g}%") if quality.share else (lambda value: f"{value:.4g}")
    if quality.share:
        spots = [spot.scaled(100.0) for spot in spots]
    y_axis = plots.Axis(name=quality.name, write=write)
    corner = "lower left" if quality.lower else "upper left"
    title = f"{quality.name.capitalize()} against {axis.name}"
    return plots.scatter(
        spots,
        axis.plot,
        y_axis,
        front(points, lower=quality.lower),
        title=title,
        aside=f"{axis.note} · better: {corner}",
    )
