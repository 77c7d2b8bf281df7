"""The patient timeline: measured points only, height for the value, mark for the contribution.

Geometry is computed here and drawn by `templates/timeline.svg`; the picture needs no plotting
library and stays under fifty kilobytes. A contribution is told by shape (up or down), by
size, and only last by color, so that print in gray says the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Variable
from clinode.errors import printable
from clinode.report.charts import shortened
from clinode.report.paths import shapes
from clinode.report.wording import hours, measured, signed

LEFT, RIGHT, WIDTH = 264, 890, 960
TOP, ROW, PAD = 26, 30, 6
LABEL = 42  # characters that fit left of the picture
MOST_MARKS = 1500  # beyond this a page would pass its size; the rest is merged, and said so
TITLED_MARKS = 25  # tooltips for the largest contributions only; a table tells all


@dataclass(frozen=True)
class Timeline:
    """Everything the template draws, in the units of the picture."""

    rows: list[dict[str, Any]]
    ticks: list[dict[str, Any]]
    height: float
    bottom: float
    decision: float
    description: str
    note: str
    width: int = WIDTH
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP


@dataclass(frozen=True)
class Mark:
    """One point: where its shape begins, and the shape."""

    style: str
    corner: tuple[float, float]
    shape: str
    title: str


def timeline(
    events: pd.DataFrame, prediction_time: float, variables: Mapping[str, Variable]
) -> Timeline:
    """Lay out one subject's events.

    Args:
        events: Rows of `Attributions.to_pandas()` of one subject, with a column `end` (hours, NaN
            for an impulse) that treatments read; statics are left out.
        prediction_time: Hours since time zero, the right end of the picture.
        variables: The schema's variables by name, for units and reference intervals.

    Returns:
        The geometry; `note` says what was merged, where there were too many points to draw.
    """
    points = events.query("kind == 'observation'")
    treatments = events.query("kind == 'input'")
    points, note = _thin(points)
    first = min(0.0, min(points["time"].tolist(), default=0.0))
    span = max(prediction_time - first, 1e-9)

    def across(time: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (time - first) / span, 1)

    largest = max(np.abs(events["attribution"].to_numpy(float)).tolist(), default=0.0)
    titled = _threshold(points["attribution"].to_numpy(float), TITLED_MARKS)
    sizes = points.assign(size=points["attribution"].abs())
    order = sizes.groupby("variable", observed=True).agg(size=("size", "sum"))
    rows = []
    top = TOP
    for name in order.sort_values("size", ascending=False, kind="stable").index:
        own = pd.DataFrame(points[points["variable"] == name])
        rows.append(_row(own, variables.get(str(name)), str(name), top, across, largest, titled))
        top += ROW
    for name, own in treatments.groupby("variable", observed=True):
        rows.append(_bars(own, variables.get(str(name)), str(name), top, across, prediction_time))
        top += ROW
    return Timeline(
        rows=rows,
        ticks=[{"x": across(t), "label": f"{t:g}"} for t in _ticks(first, prediction_time)],
        height=float(top + 40),
        bottom=float(top),
        decision=across(prediction_time),
        description=(
            f"{len(rows)} variables over {hours(span)}, {len(points)} measured points. "
            "The same numbers stand in the tables below."
        ),
        note=note,
    )


def _thin(points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Merge the smallest contributions of crowded variables into hourly means."""
    if len(points) <= MOST_MARKS:
        return points, ""
    cut = _threshold(points["attribution"].to_numpy(float), MOST_MARKS // 2)
    marked = points.assign(is_large=points["attribution"].abs() >= cut, hour=points["time"] // 1)
    small = marked.query("not is_large")
    merged = small.groupby(["variable", "hour"], observed=True, as_index=False).agg(
        time=("time", "mean"),
        value=("value", "mean"),
        attribution=("attribution", "sum"),
    )
    note = (
        f"{len(small)} of {len(points)} points with small contributions are drawn as {len(merged)} "
        "hourly means; their contributions are summed."
    )
    drawn = pd.concat([marked.query("is_large"), merged])
    return drawn.sort_values("time", kind="stable"), note


def _threshold(attribution: np.ndarray, count: int) -> float:
    if len(attribution) <= count:
        return 0.0
    return float(np.sort(np.abs(attribution))[-count])


def _row(own, variable, name, top, across, largest, titled) -> dict[str, Any]:
    low, high = _span(own["value"].to_numpy(), variable)
    inner = ROW - 2 * PAD

    def down(value: float) -> float:
        return round(top + PAD + inner * (1 - (min(max(value, low), high) - low) / (high - low)), 1)

    unit = "" if variable is None or variable.unit == "1" else f" {variable.unit}"
    marks = []
    for time, value, attribution in own[["time", "value", "attribution"]].itertuples(index=False):
        title = ""
        if abs(attribution) >= titled:
            title = f"{hours(time)}: {measured(value)}{unit}, {signed(attribution)}"
        marks.append(_mark(across(time), down(value), attribution, largest, title))
    band = None
    if variable is not None and variable.normal is not None:
        upper, lower = down(variable.normal[1]), down(variable.normal[0])
        if lower - upper >= 1:
            band = {"y": upper, "height": round(lower - upper, 1)}
    return {
        "label": label(variable, name),
        "sum": signed(float(own["attribution"].sum())),
        "middle": top + ROW / 2 + 4,
        "bottom": top + ROW,
        "band": band,
        "marks": _together(marks),
        "bars": [],
    }


def _mark(x: float, y: float, attribution: float, largest: float, title: str) -> Mark:
    share = abs(attribution) / largest if largest > 0 else 0.0
    if share < 0.02:
        return Mark("o", (x, y), "h0", "")
    size = round(3 + 6 * math.sqrt(share))
    style = ("u" if attribution > 0 else "v") + (" w" if share < 0.15 else "")
    up = -size if attribution > 0 else size
    shape = f"h{2 * size}l{-size} {round(up * 1.4)}z".replace(" -", "-")
    return Mark(style, (x - size, y - up * 0.6), shape, title)


def _together(marks: list[Mark]) -> list[dict[str, str]]:
    """Marks without a tooltip as one path for each style, below those with one."""
    drawn = [
        {"style": style, "path": shapes([(m.corner, m.shape) for m in own]), "title": ""}
        for style in ("o", "u w", "v w", "u", "v")
        if (own := [m for m in marks if m.style == style and not m.title])
    ]
    single = [m for m in marks if m.title]
    return drawn + [
        {"style": m.style, "path": shapes([(m.corner, m.shape)]), "title": m.title} for m in single
    ]


def _span(values: np.ndarray, variable: Variable | None) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if variable is not None and variable.normal is not None:
        low, high = min(low, variable.normal[0]), max(high, variable.normal[1])
    if high - low < 1e-12:
        return low - 0.5, high + 0.5
    return low, high


def _bars(own, variable, name, top, across, prediction_time) -> dict[str, Any]:
    unit = "" if variable is None or variable.unit == "1" else f" {variable.unit}"
    bars = []
    columns = ["time", "end", "value", "attribution"]
    for start, end, value, attribution in own[columns].itertuples(index=False):
        left = across(start)
        right = across(min(end, prediction_time)) if math.isfinite(end) else left
        told = f"from {hours(start)}" if math.isfinite(end) else f"at {hours(start)}"
        bars.append(
            {
                "x": left,
                "y": top + PAD + 3,
                "width": round(max(right - left, 3), 1),
                "height": ROW - 2 * PAD - 6,
                "title": f"{told}: {measured(value)}{unit}, {signed(attribution)}",
            }
        )
    return {
        "label": label(variable, name),
        "sum": signed(float(own["attribution"].sum())),
        "middle": top + ROW / 2 + 4,
        "bottom": top + ROW,
        "band": None,
        "marks": [],
        "bars": bars,
    }


def label(variable: Variable | None, name: str) -> str:
    """The readable name of a variable with its unit, short enough for its column."""
    if variable is None:
        return shortened(printable(name), LABEL)
    text = printable(variable.label or name)
    unit = "" if variable.unit == "1" else f" ({printable(variable.unit)})"
    if len(unit) > LABEL // 2:
        unit = unit[: LABEL // 2 - 2] + "…)"
    return shortened(text, LABEL - len(unit)) + unit


def _ticks(first: float, last: float) -> Sequence[float]:
    span = max(last - first, 1e-9)
    step = next(
        (s for s in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 168, 720, 8766) if span / s <= 9), 87660
    )
    start = math.ceil(first / step)
    return [float(k * step) for k in range(start, math.floor(last / step + 1e-9) + 1)]
