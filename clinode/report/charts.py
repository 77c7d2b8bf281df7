"""Charts as lists of marks that `templates/chart.svg` draws: lines, bands, points, bars, words.

Drawn in the page's own colors, so that they turn dark with it. A series is told from another by its
dashes and its name beside it, and only last by color. The numbers stand in a table beside each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinode.report import paths
from clinode.report.paths import short as _short

Number = float | int
Numbers = Sequence[Number] | np.ndarray
LABEL_WIDTH = 6.3  # of a letter at the size that labels have, on average


@dataclass
class Chart:
    """One picture.

    Args:
        name: Of the picture within its page, for the ids of its title and description.
        title: What it shows, short.
        description: What it says, in words; empty where the title tells all.
        width, height: Of the picture, in its own units.
        marks: What is drawn, in order: dictionaries that the template knows.
    """

    name: str
    title: str
    description: str
    width: Number
    height: Number
    marks: list[dict[str, Any]] = field(default_factory=list)

    def path(self, style: str, d: str) -> None:
        """A path."""
        if d:
            self.marks.append({"style": style, "d": d})

    def text(self, x: Number, y: Number, words: str, style: str = "") -> None:
        """Words at a place; style "e" ends there, "m" has its middle there, "v" stands upright."""
        self.marks.append({"style": style, "x": _short(x), "y": _short(y), "words": words})

    def open_group(self, name: str) -> None:
        """What is drawn from here to `close_group` can be drawn again by other pictures."""
        self.marks.append({"open": name})

    def close_group(self) -> None:
        """The end of what other pictures draw again."""
        self.marks.append({"close": True})

    def use_group(self, name: str) -> None:
        """Draw again what another picture of the page holds under this name."""
        self.marks.append({"use": name})

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """The marks, words of one style that follow each other taken together."""
        found: list[dict[str, Any]] = []
        for mark in self.marks:
            if "words" in mark and "v" not in mark["style"].split():
                if not (found and "texts" in found[-1] and found[-1]["style"] == mark["style"]):
                    found.append({"style": mark["style"], "texts": []})
                found[-1]["texts"].append(mark)
            else:
                found.append(mark)
        return found

    def rect(self, style: str, x: Number, y: Number, width: Number, height: Number) -> None:
        """A bar."""
        box = {"x": _short(x), "y": _short(y), "w": _short(width), "h": _short(height)}
        self.marks.append({"style": style, **box})


@dataclass(frozen=True)
class Panel:
    """A pair of axes within a chart.

    Args:
        chart: That it is part of.
        left, top, right, bottom: Where it lies.
        x, y: What the ends of the axes stand for.
    """

    chart: Chart
    left: Number
    top: Number
    right: Number
    bottom: Number
    x: tuple[Number, Number]
    y: tuple[Number, Number]

    def across(self, value: Number) -> float:
        """Where a number lies from left to right, kept within the axes."""
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def up(self, value: Number) -> float:
        """Where a number lies from bottom to top, kept within the axes."""
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return self.bottom - (self.bottom - self.top) * min(max(share, 0.0), 1.0)

    def x_axis(self, label: str, ticks: Numbers, *, as_percent: bool = False) -> None:
        """Ticks, their numbers, grid lines and what the axis is."""
        d = "".join(f"M{_short(self.across(t))} {_short(self.top)}V{_short(self.bottom)}"
                    for t in ticks)  # fmt: skip
        self.chart.path("g", d)
        for tick in ticks:
            self.chart.text(self.across(tick), self.bottom + 16, _number(tick, as_percent), "q m")
        if label:
            self.chart.text((self.left + self.right) / 2, self.bottom + 34, label, "m")

    def y_axis(self, label: str, ticks: Numbers, *, as_percent: bool = False) -> None:
        """Ticks, their numbers, grid lines and what the axis is."""
        d = "".join(f"M{_short(self.left)} {_short(self.up(t))}H{_short(self.right)}"
                    for t in ticks)  # fmt: skip
        self.chart.path("g", d)
        for tick in ticks:
            self.chart.text(self.left - 6, self.up(tick) + 4, _number(tick, as_percent), "q e")
        if label:
            self.chart.text(self.left - 44, (self.top + self.bottom) / 2, label, "v")

    def line(self, style: str, x: Numbers, y: Numbers) -> None:
        """A line through points; it breaks where a number is missing."""
        parts: list[list[tuple[float, float]]] = [[]]
        for a, b in zip(x, y, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                parts[-1].append((self.across(a), self.up(b)))
            elif parts[-1]:
                parts.append([])
        self.chart.path(style, "".join(paths.polyline(part) for part in parts))

    def band(self, style: str, x: Numbers, low: Numbers, high: Numbers) -> None:
        """What lies between two lines, where both are known."""
        known = [
            (a, b, c)
            for a, b, c in zip(x, low, high, strict=True)
            if math.isfinite(b) and math.isfinite(c)
        ]
        if len(known) < 2:
            return
        there = [(self.across(a), self.up(c)) for a, _, c in known]
        back = [(self.across(a), self.up(b)) for a, b, _ in known[::-1]]
        self.chart.path(style, paths.polyline(there + back, whole=True) + "z")

    def belt(self, style: str, low: Number, high: Number) -> None:
        """What lies between two numbers, from side to side; nothing where that is too thin."""
        bottom, top = round(self.up(low)), round(self.up(high))
        if bottom > top:
            width = _short(self.right - self.left)
            self.chart.path(style, f"M{_short(self.left)} {top}h{width}v{bottom - top}h-{width}z")

    def points(self, style: str, x: Numbers, y: Numbers) -> None:
        """Dots, drawn as the ends of lines of no length."""
        places = [
            (self.across(a), self.up(b))
            for a, b in zip(x, y, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        ]
        self.chart.path(style, paths.dots(places))

    def whiskers(self, style: str, x: Numbers, low: Numbers, high: Numbers) -> None:
        """Upright intervals."""
        d = "".join(
            f"M{_short(self.across(a))} {_short(self.up(b))}V{_short(self.up(c))}"
            for a, b, c in zip(x, low, high, strict=True)
            if math.isfinite(b) and math.isfinite(c)
        )
        self.chart.path(style, d)

    def spans(self, style: str, y: Numbers, low: Numbers, high: Numbers) -> None:
        """Lying intervals."""
        d = "".join(
            f"M{_short(self.across(b))} {_short(self.up(a))}H{_short(self.across(c))}"
            for a, b, c in zip(y, low, high, strict=False)
            if math.isfinite(b) and math.isfinite(c)
        )
        self.chart.path(style, d)

    def rules(self, style: str, x: Numbers) -> None:
        """Upright lines over the whole height."""
        d = "".join(
            f"M{_short(self.across(a))} {_short(self.top)}V{_short(self.bottom)}" for a in x
        )
        self.chart.path(style, d)


@dataclass(frozen=True, kw_only=True)
class Dots:
    """One panel of a `dot_chart`: a number for each row, on an axis of its own.

    Args:
        title: Of the panel.
        unit: What its axis is in.
        value: NaN where there is none.
        low, high: Ends of the intervals, NaN where there are none.
        rules: Upright lines to hold the dots against.
        within: Ends of the axis; by default what the numbers and 0 need.
    """

    title: str
    unit: str
    value: Numbers
    low: Numbers = ()
    high: Numbers = ()
    rules: Numbers = ()
    within: tuple[Number, Number] | None = None

    @property
    def ends(self) -> tuple[Number, Number]:
        """Ends of the axis."""
        if self.within is not None:
            return self.within
        numbers = [v for v in (*self.value, *self.low, *self.high, *self.rules) if math.isfinite(v)]
        return nice_range(min([*numbers, 0.0]), max([*numbers, 1e-6]))


def dot_chart(
    name: str, title: str, description: str, labels: Sequence[str], panels: Sequence[Dots]
) -> Chart:
    """A row a label, the first on top; in each panel a dot with its interval.

    Args:
        name: Of the chart within its page.
        title: Of the chart.
        description: Of the chart.
        labels: Of the rows.
        panels: From left to right.
    """
    row, top, left, width, gap = 20, 30, 284, 900, 48
    bottom = top + row * len(labels)
    chart = Chart(name, title, description, width, bottom + 46)
    each = (width - left - 24 - gap * (len(panels) - 1)) / len(panels)
    for position, text in enumerate(labels):
        words = shortened(text, (left - 16) / LABEL_WIDTH)
        chart.text(left - 12, top + row * (position + 0.5) + 4, words, "e")
    places = [k + 0.5 for k in range(len(labels))]
    for number, dots in enumerate(panels):
        begin = left + number * (each + gap)
        panel = Panel(chart, begin, top, begin + each, bottom, dots.ends, (float(len(labels)), 0.0))
        panel.x_axis(dots.unit, nice_ticks(*dots.ends, most=5))
        chart.text(begin, top - 12, dots.title, "b")
        panel.rules("l3", dots.rules)
        panel.spans("i", places, dots.low, dots.high)
        panel.points("p", dots.value, places)
    return chart


def nice_ticks(low: Number, high: Number, *, most: int = 6) -> list[float]:
    """Round numbers within an interval.

    Example:
        >>> nice_ticks(0.0, 0.37)
        [0.0, 0.1, 0.2, 0.3]
    """
    span = max(high - low, 1e-12)
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def nice_range(low: Number, high: Number) -> tuple[float, float]:
    """The interval widened to round numbers.

    Example:
        >>> nice_range(0.0, 0.37)
        (0.0, 0.4)
    """
    if high <= low:
        high = low + 1.0
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return float(f"{first * step:.12g}"), float(f"{last * step:.12g}")


def shortened(text: str, letters: Number) -> str:
    """A text that fits, with dots where something was cut off.

    Example:
        >>> shortened("a long name", 7)
        'a long…'
    """
    most = int(letters)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def swarm(values: Numbers, reach: Number, *, step: Number, most: Number) -> np.ndarray:
    """Offsets that lay dots of one row beside each other where they would lie upon each other.

    Args:
        values: Places along the row.
        reach: Width of a dot along the row.
        step: Distance of two dots across the row.
        most: Largest offset across the row; more dots than fit lie upon each other.

    Example:
        >>> swarm([0.0, 0.0, 0.0, 5.0], 1.0, step=2.0, most=10.0).tolist()
        [0.0, 2.0, -2.0, 0.0]
    """
    bins: dict[int, int] = {}
    lanes = max(1, 2 * int(most / step) + 1)
    offsets = np.zeros(len(values))
    for k, value in enumerate(values):
        key = math.floor(value / reach)
        lane = bins.get(key, 0) % lanes
        bins[key] = bins.get(key, 0) + 1
        offsets[k] = step * ((lane + 1) // 2) * (1 if lane % 2 else -1)
    return offsets + 0.0


def _number(value: Number, as_percent: bool) -> str:
    text = f"{100 * value:g} %" if as_percent else f"{value:g}"
    return text.replace("-", "−")
