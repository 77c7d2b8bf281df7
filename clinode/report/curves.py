"""Curves of page 3: contributions against values, events that come and go, and other seeds.

A point stands for at least eleven subjects, and says nothing of one: values are means over them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution import Attributions
from clinode.attribution.checks import AttributionChecks, InsertionDeletion, SeedStability
from clinode.report.charts import (
    LABEL_WIDTH,
    Chart,
    Dots,
    Panel,
    dot_chart,
    nice_range,
    nice_ticks,
    shortened,
)
from clinode.report.material import SEED, Told
from clinode.report.tables import DASH, Table, interval
from clinode.report.wording import measured, signed
from clinode.statistics import Estimate, bootstrap

SHOWN = 6  # variables
BINS = 8  # of the values of one, at most
SMALLEST = 11  # subjects behind a point
COLUMNS, LEFT, WIDTH, GAP = 2, 64, 900, 84
HEIGHT = 132
WAYS = {"insertion": "Events come", "deletion": "Events go"}
FILLS = {
    "delete": "never measured",
    "cohort_mean": "the training mean",
    "carry": "the last value before",
}
_ORDERS = (("map", "l1", "largest contribution first"), ("random", "l2", "random order"),
           ("greedy", "l3", "greedy order"))  # fmt: skip


def dependence(
    attributions: Attributions, label: Callable[[object], str], unit: str, n_resamples: int
) -> dict[str, Any] | None:
    """Mean contribution of a measurement against its value, of the variables that moved most.

    Args:
        attributions: Of the subjects that are told.
        label: The readable name of a variable, with its unit.
        unit: Of the contributions, in words.
        n_resamples: Bootstrap resamples of subjects.

    Returns:
        None where no variable has two groups of values with enough subjects.
    """
    if attributions.players != "event":
        return None  # several values together are no value
    events = attributions.events.query("kind == 'observation'").astype({"variable": str})
    table = attributions.by_variable(n_resamples=2)  # the largest first
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for name in table.loc[table["kind"] == "observation", "variable"].astype(str):
        groups = _groups(events.loc[events["variable"] == name], n_resamples)
        if len(groups) > 1:
            found.append((name, groups))
        if len(found) == SHOWN:
            break
    if not found:
        return None
    chart = _grid(
        "dependence",
        "Mean contribution of a measurement against its value",
        f"{len(found)} variables, one panel each; lines through the means of groups of values, "
        "with 95 % intervals. The numbers stand in the table.",
        len(found),
    )
    rows = []
    for place, (name, groups) in enumerate(found):
        value = [one["value"] for one in groups]
        share = [one["share"] for one in groups]
        low, high = [one.low for one in share], [one.high for one in share]
        mean = [one.value for one in share]
        told_ends = [number for number in (*low, *high, *mean, 0.0) if np.isfinite(number)]
        ends = nice_range(min(told_ends), max(told_ends))
        panel = _panel(chart, place, nice_range(min(value), max(value)), ends)
        told = label(name)
        n = sum(one["measurements"] for one in groups)
        words = f"{shortened(told, 34)}, {n:,} measurements"
        chart.text(panel.left, panel.top - 8, words, "b")
        panel.x_axis("", nice_ticks(*panel.x, most=5))
        panel.y_axis("", nice_ticks(*ends, most=4))
        panel.line("l3", list(panel.x), [0.0, 0.0])
        panel.line("l1", value, mean)
        panel.whiskers("i", value, low, high)
        panel.points("p", value, mean)
        rows += [
            [
                told,
                measured(one["value"]),
                _signed_interval(one["share"]),
                f"{one['measurements']:,}",
                f"{one['subjects']:,}",
            ]
            for one in groups
        ]
    return {
        "chart": chart,
        "caption": "Across: the value, in the unit of its variable; up: mean contribution of a "
        f"measurement with such a value, {unit}, each panel on its own scale. Lines at "
        "the points: 95 % bootstrap intervals over subjects. A group of values holds at least "
        f"{SMALLEST} subjects.",
        "tables": [
            Table(
                f"Mean contribution by group of values, {unit} [95 % interval]",
                ["Variable", "Mean value", "Mean contribution", "Measurements", "Subjects"],
                rows,
                (1, 2, 3, 4),
            )
        ],
    }


def _groups(own: pd.DataFrame, n_resamples: int) -> list[dict[str, Any]]:
    """Groups of the values of one variable, from low to high: mean value, mean contribution."""
    amount = own["value"].to_numpy(dtype=float)
    is_known = np.isfinite(amount)
    amount = amount[is_known]
    if len(np.unique(amount)) < 2:
        return []
    ends = np.unique(np.quantile(amount, np.linspace(0, 1, BINS + 1)[1:-1]))
    code = np.searchsorted(ends, amount)
    subject, known = pd.factorize(own["subject_id"].to_numpy()[is_known])
    number = _merged(code, subject)
    n_groups, n_subjects = int(number.max()) + 1, len(known)
    if n_groups < 2:
        return []
    cell = subject * n_groups + number
    shape = (n_subjects, n_groups)
    count = np.bincount(cell, minlength=n_subjects * n_groups).reshape(shape).astype(float)

    def summed(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=weights, minlength=n_subjects * n_groups).reshape(shape)

    total = summed(own["attribution"].to_numpy(dtype=float)[is_known])
    value = summed(amount).sum(axis=0) / count.sum(axis=0)
    drawn = bootstrap(
        {str(k): _ratio_of(total[:, k], count[:, k]) for k in range(n_groups)},
        np.arange(n_subjects),
        n_resamples=n_resamples,
        seed=SEED,
    )
    return [
        {
            "value": float(value[k]),
            "share": drawn.estimate(str(k)),
            "measurements": int(count[:, k].sum()),
            "subjects": int((count[:, k] > 0).sum()),
        }
        for k in range(n_groups)
    ]


def _merged(code: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Groups numbered anew, neighbors taken together until each has enough subjects."""
    ends: list[int] = []
    begin = 0
    for last in range(int(code.max()) + 1):
        held = (code >= begin) & (code <= last)
        if len(np.unique(subject[held])) >= SMALLEST:
            ends.append(last)
            begin = last + 1
    # what is left over at the top joins the last group
    return np.minimum(np.searchsorted(ends, code), max(len(ends) - 1, 0))


def _ratio_of(part: np.ndarray, whole: np.ndarray):
    def ratio(weights: np.ndarray) -> np.ndarray:
        n = weights @ whole
        return np.divide(weights @ part, n, out=np.full(len(n), np.nan), where=n > 0)

    return ratio


def insertion(checks: Told | None) -> dict[str, Any] | None:
    """The output while events come and go, in the order of the maps and in others.

    Returns:
        None where it was not handed over, or fewer than eleven subjects stand behind it.
    """
    found = _of(checks, InsertionDeletion)
    if found is None or found.n_subjects < SMALLEST:
        return None
    keys = list(found.scores)
    chart = _grid(
        "insertion",
        "Mean output while events come and go",
        f"{found.verdict}. The numbers stand in the table.",
        len(keys),
        legend=True,
    )
    x = LEFT
    for _, style, words in _ORDERS:
        chart.path(style, f"M{x} 14H{x + 26}")
        chart.text(x + 32, 18, words)
        x += round(56 + LABEL_WIDTH * len(words))
    shares = 100 * np.asarray(found.shares)
    everything = [value for curve in found.curves.values() for value in curve]
    ends = nice_range(min(everything), max(everything))
    rows = []
    for place, (fill, way) in enumerate(keys):
        panel = _panel(chart, place, (0.0, 100.0), ends, legend=True)
        words = f"{WAYS[way]}; away: {FILLS[fill]}"
        chart.text(panel.left, panel.top - 8, words, "b")
        panel.x_axis("", nice_ticks(0.0, 100.0, most=5))
        panel.y_axis("", nice_ticks(*ends, most=4))
        low, high = found.bands[fill, way]
        panel.band("band", shares, low, high)
        for order, style, _ in _ORDERS:
            panel.line(style, shares, found.curves[fill, way, order])
        middle = len(shares) // 2
        rows.append(
            [
                words,
                interval(found.scores[fill, way], digits=2),
                *(signed(found.curves[fill, way, order][middle]) for order, _, _ in _ORDERS),
            ]
        )
    half = f"{shares[len(shares) // 2]:.0f} %"
    return {
        "chart": chart,
        "caption": f"Across: share of the events, %; up: mean output of {found.n_subjects} "
        "subjects. Band: the random order and the 95 % interval over subjects of how far the "
        "order of the maps lies from it; where the band leaves the dashed line, the order of the "
        "maps is told from a random one. What is put where an event is away is part of the "
        "question, so there are several.",
        "tables": [
            Table(
                "Score: 0 is a random order, 1 the greedy one [95 % interval over subjects]; mean "
                f"output at {half} of the events",
                ["How", "Score", *(words.capitalize() for _, _, words in _ORDERS)],
                rows,
                (1, 2, 3, 4),
            )
        ],
    }


def seeds(checks: Told | None) -> dict[str, Any] | None:
    """How far models that differ in their seed only give the same maps.

    Returns:
        None where it was not handed over.
    """
    found = _of(checks, SeedStability)
    if found is None:
        return None
    told = found.estimates()
    labels = [name[:1].upper() + name[1:] for name in told]
    value, low, high = (
        [getattr(one, end) if one.is_defined else np.nan for one in told.values()]
        for end in ("value", "low", "high")
    )
    n = len(found.pairs)
    pairs = f"{n} pair{'' if n == 1 else 's'}"
    known = [number for number in [*value, *low] if np.isfinite(number)]
    least = min([*known, 0.0])
    dots = Dots(
        title="Between two seeds",
        unit="1: the same in both",
        value=value,
        low=low,
        high=high,
        rules=[1.0],
        within=(-1.0 if least < 0 else 0.0, 1.0),
    )
    return {
        "chart": dot_chart(
            "seeds",
            "Agreement of maps between seeds",
            f"{found.verdict}. The numbers stand in the table.",
            labels,
            [dots],
        ),
        "caption": f"Means over {pairs} of models that differ in their seed only; "
        f"lines: 95 % bootstrap intervals over subjects. {found.verdict[:1].upper()}"
        f"{found.verdict[1:]}.",
        "tables": [
            Table(
                "Agreement between two seeds [95 % interval over subjects]",
                ["What", "Agreement"],
                [[name, interval(one)] for name, one in zip(labels, told.values(), strict=True)],
                (1,),
            )
        ],
    }


def without_curves(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a check tells without its curves, which are a figure and not a table."""
    return {
        key: without_curves(value) if isinstance(value, Mapping) else value
        for key, value in told.items()
        if key not in ("curves", "bands", "shares")
    }


def _of(checks: Told | None, kind: type) -> Any:
    """A check of this kind, by itself or among others."""
    held: Sequence[Any] = (
        list(checks.checks.values()) if isinstance(checks, AttributionChecks) else [checks]
    )
    return next((one for one in held if isinstance(one, kind)), None)


def _grid(name: str, title: str, description: str, n: int, *, legend: bool = False) -> Chart:
    rows = -(-n // COLUMNS)
    return Chart(name, title, description, WIDTH, (30 if legend else 6) + rows * (HEIGHT + 62))


def _panel(
    chart: Chart,
    place: int,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    legend: bool = False,
) -> Panel:
    row, column = divmod(place, COLUMNS)
    each = (WIDTH - LEFT - 20 - GAP * (COLUMNS - 1)) / COLUMNS
    left = LEFT + column * (each + GAP)
    top = (30 if legend else 6) + 24 + row * (HEIGHT + 62)
    return Panel(chart, left, top, left + each, top + HEIGHT, x, y)


def _signed_interval(estimate: Estimate) -> str:
    if not estimate.is_defined:
        return DASH
    if not np.isfinite(estimate.low):
        return signed(estimate.value)
    return f"{signed(estimate.value)} [{signed(estimate.low)}, {signed(estimate.high)}]"
