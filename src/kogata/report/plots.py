"""Plots as inline SVG: stretched to any width, labelled in HTML so that text keeps its size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

WIDTH, HEIGHT = 1000, 400
MAX_POINTS = 480

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a plot."""

    name: str
    points: list[Point]
    colour: str = "a"
    """`a` to `f`: a colour of the page."""
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its name and how its numbers are written."""

    name: str
    write: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    low: float | None = None
    high: float | None = None
    ticks: Callable[[float, float, int], list[float]] = field(default=lambda *range_: ticks(*range_))


def line_plot(series: Sequence[Series], x: Axis, y: Axis, *, title: str, small: bool = False) -> Markup:
    """Draws lines over one x axis; the numbers under the pointer appear where scripts run."""
    kept = [Series(**{**vars(line), "points": thin(_finite(line.points))}) for line in series]
    kept = [line for line in kept if line.points]
    if not kept:
        return Markup("")
    xs = [point[0] for line in kept for point in line.points]
    ys = [point[1] for line in kept for point in line.points]
    x_low, x_high = _range(xs, x)
    y_low, y_high = _range(ys, y)
    margin = 0.06 * (y_high - y_low)
    y_low -= margin if y.low is None else 0
    y_high += margin if y.high is None else 0
    to_x = _scale(x_low, x_high, WIDTH)
    to_y = _scale(y_low, y_high, HEIGHT)

    def at(point: Point) -> str:
        return f"{to_x(point[0]):.1f} {HEIGHT - to_y(point[1]):.1f}"

    shapes: list[str] = []
    dots: list[str] = []
    marks: list[Markup] = []
    for value in ticks(y_low, y_high, 3 if small else 5):
        level = HEIGHT - to_y(value)
        shapes.append(f'<path class="grid" d="M0 {level:.1f}H{WIDTH}"/>')
        marks.append(_mark("y", f"top:{100 * level / HEIGHT:.2f}%", y.write(value)))
    for number, value in enumerate(x.ticks(x_low, x_high, 3 if small else 6)):
        place = 100 * to_x(value) / WIDTH
        marks.append(_mark("x odd" if number % 2 else "x", f"left:{place:.2f}%", x.write(value)))
    for line in kept:
        if line.dots:
            inside = [point for point in line.points if y_low <= point[1] <= y_high]
            if len(line.points) > 1:
                joined = "M" + "L".join(at(point) for point in line.points)
                shapes.append(f'<path class="line thin {line.colour}" d="{joined}"/>')
            dots.append(f'<path class="dots {line.colour}" d="{"".join(f"M{at(p)}h0" for p in inside)}"/>')
        elif len(line.points) == 1:
            dots.append(f'<path class="dots {line.colour}" d="M{at(line.points[0])}h0"/>')
        else:
            style = "faint" if line.faint else "line"
            joined = "M" + "L".join(at(point) for point in line.points)
            shapes.append(f'<path class="{style} {line.colour}" d="{joined}"/>')
    shown = [line for line in kept if not line.faint]
    data = {
        "xname": x.name,
        "series": [
            {
                "name": line.name,
                "points": [
                    [round(100 * to_x(at_x) / WIDTH, 2), y.write(at_y), x.write(at_x)]
                    for at_x, at_y in line.points
                ],
            }
            for line in shown
        ],
    }
    legend = Markup("").join(
        Markup('<span class="key {}">{}</span>').format(line.colour, line.name)
        for line in shown
        if len(shown) > 1
    )
    return Markup(
        '<figure class="plot{}"><figcaption><b>{}</b><span class="keys">{}</span></figcaption>'
        '<div class="area" data-plot="{}">'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
        '<svg class="over" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
        "{}</div></figure>"
    ).format(
        " small" if small else "",
        title,
        legend,
        json.dumps(data, ensure_ascii=False, separators=(",", ":")),
        WIDTH,
        HEIGHT,
        title,
        Markup("".join(shapes)),
        WIDTH,
        HEIGHT,
        Markup("".join(dots)),
        Markup("").join(marks),
    )


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One point of a scatter: its letter, and beside it what each seed gave."""

    letter: str
    name: str
    colour: str
    x: float
    y: float
    seeds: list[Point] = field(default_factory=list)

    def scaled(self, factor: float) -> Spot:
        """Gives the spot with its y in other units."""
        seeds = [(x, y * factor) for x, y in self.seeds]
        return replace(self, y=self.y * factor, seeds=seeds)


def scatter(
    spots: Sequence[Spot], x: Axis, y: Axis, front: Sequence[int], *, title: str, aside: str = ""
) -> Markup:
    """Draws spots by cost and quality, and through those on the front (places in order) a line of steps.

    The x axis shows at least the upper quarter of the way from nothing, so that a trifle looks like one.
    """
    every = [(spot.x, spot.y) for spot in spots] + [point for spot in spots for point in spot.seeds]
    every = _finite(every)
    if not every:
        return Markup("")
    most = max(point[0] for point in every)
    low_x = min(min(point[0] for point in every), 0.75 * most)
    low_x, high_x = max(0.0, low_x - 0.08 * (most - low_x)), most + 0.08 * (most - low_x)
    low_y, high_y = min(point[1] for point in every), max(point[1] for point in every)
    margin = 0.12 * (high_y - low_y) or 0.02 * (abs(high_y) or 1.0)
    low_y, high_y = low_y - margin, high_y + margin
    to_x, to_y = (
        _scale(low_x, high_x if high_x > low_x else low_x + 1.0, WIDTH),
        _scale(low_y, high_y, HEIGHT),
    )

    def at(point: Point) -> str:
        return f"{to_x(point[0]):.1f} {HEIGHT - to_y(point[1]):.1f}"

    shapes, dots, marks = [], [], []
    for value in ticks(low_y, high_y, 4):
        level = HEIGHT - to_y(value)
        shapes.append(f'<path class="grid" d="M0 {level:.1f}H{WIDTH}"/>')
        marks.append(_mark("y", f"top:{100 * level / HEIGHT:.2f}%", y.write(value)))
    for number, value in enumerate(x.ticks(low_x, high_x, 4)):
        kind = "x odd" if number % 2 else "x"
        marks.append(_mark(kind, f"left:{100 * to_x(value) / WIDTH:.2f}%", x.write(value)))
    steps = "".join(
        f"M{at((spots[place].x, spots[place].y))}"
        if number == 0
        else f"H{to_x(spots[place].x):.1f}V{HEIGHT - to_y(spots[place].y):.1f}"
        for number, place in enumerate(front)
    )
    if front:
        shapes.append(f'<path class="front" d="{steps}H{WIDTH}"/>')
    taken: list[tuple[float, float]] = []
    for number, spot in enumerate(spots):
        seeds = "".join(f"M{at(point)}h0" for point in _finite(spot.seeds))
        dots.append(f'<path class="dots seed {spot.colour}" d="{seeds}"/>' if seeds else "")
        dots.append(f'<path class="dots {spot.colour}" d="M{at((spot.x, spot.y))}h0"/>')
        left, top = 100 * to_x(spot.x) / WIDTH, 100 * (1 - to_y(spot.y) / HEIGHT)
        place = next((way for way in WAYS if _free(left, top, way, taken)), WAYS[0])
        taken.append((left + SIDE * place[0], top + UP * place[1]))
        marks.append(
            _SPOT.format(
                colour=spot.colour,
                state="on" if number in front else "off",
                left=f"{left:.2f}",
                top=f"{top:.2f}",
                down=round(20 * place[1]),
                aside=round(20 * place[0]),
                told=f"{spot.letter} {spot.name}: {y.write(spot.y)} at {x.write(spot.x)}",
                letter=spot.letter,
            )
        )
    return _SCATTER.format(
        title=title,
        aside=aside,
        shapes=Markup("".join(shapes)),
        dots=Markup("".join(dots)),
        marks=Markup("").join(marks),
        size=f"{WIDTH} {HEIGHT}",
    )


_SPOT = Markup(
    '<span class="spot {colour} {state}" style="left:{left}%;top:{top}%;margin:{down}px 0 0 {aside}px" '
    'title="{told}">{letter}</span>'
)
_SCATTER = Markup(
    '<figure class="plot scatter"><figcaption><b>{title}</b><span class="keys">{aside}</span></figcaption>'
    '<div class="area"><svg viewBox="0 0 {size}" preserveAspectRatio="none" role="img" aria-label="{title}">'
    '{shapes}</svg><svg class="over" viewBox="0 0 {size}" preserveAspectRatio="none" aria-hidden="true">'
    "{dots}</svg>{marks}</div></figure>"
)

WAYS = ((0.7, -0.7), (0.7, 0.7), (-0.7, -0.7), (-0.7, 0.7), (1.4, 0.0), (-1.4, 0.0), (0.0, -1.4), (0.0, 1.4))
"""Where a spot's letter may stand, from its point on."""
SIDE, UP = 5.0, 9.0
"""What a letter takes of a plot's width and height, about, in per cent."""


def _free(left: float, top: float, way: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    """Says whether a letter in a place lies inside the plot and on no other letter."""
    x, y = left + SIDE * way[0], top + UP * way[1]
    if not (2 <= x <= 98 and 3 <= y <= 97):
        return False
    return all(abs(x - other[0]) >= SIDE or abs(y - other[1]) >= UP for other in taken)


def gap_bar(mean: float, low: float | None, high: float | None, span: float, *, style: str) -> Markup:
    """Draws a difference about zero with its interval; an interval that runs out of the track is cut off."""

    def place(value: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, value / span)) if span > 0 else 50.0

    whisker = Markup("")
    if low is not None and high is not None:
        left, right = place(low), place(high)
        whisker = Markup('<b style="left:{:.2f}%;width:{:.2f}%"></b>').format(left, max(0.0, right - left))
    return Markup('<div class="gap {}">{}<i style="left:{:.2f}%"></i></div>').format(
        style, whisker, place(mean)
    )


def _mark(kind: str, place: str, text: str) -> Markup:
    return Markup('<span class="tick {}" style="{}">{}</span>').format(kind, place, text)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if all(math.isfinite(part) for part in point)]


def _range(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _scale(low: float, high: float, size: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        return size * (value - low) / (high - low)

    return place


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Chooses round numbers within a range, about as many as wanted."""
    raw = (high - low) / max(wanted, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda size: abs(size - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def byte_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Chooses amounts of bytes that are round in binary units."""
    step = 2.0 ** round(math.log2(max(1.0, (high - low) / max(wanted, 1))))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def clock_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Chooses times that people count in: halves and quarters of minutes and hours."""
    raw = (high - low) / max(wanted, 1)
    if raw < 1:
        return ticks(low, high, wanted)
    step = min(CLOCK_STEPS, key=lambda size: abs(math.log(size / raw)))
    return [float(n * step) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def clock_text(seconds: float) -> str:
    """Writes a time on an axis as a clock does: `0:30`, `2:05`, `1:02:05`; parts of a second as they are."""
    if seconds % 1 > 1e-6 and seconds < 10:
        return f"{seconds:.2g}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Averages neighbours until at most so many points are left; the last one stays as it is."""
    if len(points) <= most:
        return list(points)
    size = len(points) / most
    groups = [points[int(i * size) : int((i + 1) * size)] for i in range(most)]
    means = [(_mean([p[0] for p in group]), _mean([p[1] for p in group])) for group in groups if group]
    return [*means[:-1], points[-1]]


def smooth(points: Sequence[Point], reach: int) -> list[Point]:
    """Averages each point with as many before as after it: at most `reach`, few near the beginning.

    The last `reach` points lie on the straight line that fits the last window best: an average that shrank
    there too would end on the noise of one step.
    """
    kept = _finite(points)
    last = min(reach, (len(kept) - 1) // 5)
    sums = [0.0]
    for _, y in kept:
        sums.append(sums[-1] + y)
    found: list[Point] = []
    for position, (x, _) in enumerate(kept[: len(kept) - max(0, last)]):
        near = min(reach, position // 4, len(kept) - 1 - position)
        low, high = position - near, position + near + 1
        found.append((x, (sums[high] - sums[low]) / (high - low)))
    if last > 0:
        window = [y for _, y in kept[-2 * last - 1 :]]
        steps = range(-last, last + 1)
        slope = sum(step * y for step, y in zip(steps, window, strict=True)) / sum(s * s for s in steps)
        middle = _mean(window)
        found += [(x, middle + slope * step) for step, (x, _) in enumerate(kept[-last:], 1)]
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def bar(value: float, most: float, *, mark: float | None = None, style: str = "a") -> Markup:
    """Draws one horizontal bar, with a mark where the forecast was."""
    part = 100 * min(value / most, 1.0) if most > 0 else 0.0
    where = 100 * min(mark / most, 1.0) if mark is not None and most > 0 else None
    at = Markup('<i style="left:{}%"></i>').format(f"{where:.2f}") if where is not None else Markup("")
    return Markup('<div class="bar {}"><b style="width:{}%"></b>{}</div>').format(style, f"{part:.2f}", at)
