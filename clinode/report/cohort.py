"""Page 3: which variables moved the output of the explained subjects, and by how much.

Dots are measurements without a name, a time or a value: only where a value lies among the others of
its variable, in thirds.
"""

from typing import Any

import numpy as np

from clinode.attribution import METHODS
from clinode.report import curves
from clinode.report.charts import (
    LABEL_WIDTH,
    Chart,
    Dots,
    Panel,
    dot_chart,
    nice_range,
    nice_ticks,
    shortened,
    swarm,
)
from clinode.report.material import Material
from clinode.report.paths import dots
from clinode.report.tables import Table, told_tables
from clinode.report.wording import signed, significant

FILE = "cohort.html"
RANKED = 20
SWARMED = 15  # variables with a row of dots
MOST_DOTS = 220  # of one variable; of more, every so manieth is drawn
THIRDS = ("low", "middle", "high")
ROW, DOT = 30, 3.4


def cohort_page(material: Material) -> dict[str, Any]:
    """What the template prints."""
    attributions = material.attributions
    withheld = int(attributions.gates["withheld"].to_numpy(dtype=bool).sum())
    return {
        "n_explained": len(attributions.gates),
        "n_withheld": withheld,
        "method": METHODS[attributions.method],
        "ranking": _ranking(material),
        "strip": _strip(material),
        "dependence": curves.dependence(
            attributions, material.label, material.unit, material.n_resamples
        ),
        "insertion": curves.insertion(material.checks),
        "seeds": curves.seeds(material.checks),
        "kinds": [] if material.kinds is None else told_tables(material.kinds.to_dict(), "Kinds"),
        "checks": []
        if material.checks is None
        else told_tables(curves.without_curves(material.checks.to_dict()), "Checks"),
    }


def _ranking(material: Material) -> dict[str, Any] | None:
    table = material.attributions.by_variable(n_resamples=material.n_resamples).head(RANKED)
    if not len(table):
        return None
    labels = [material.label(name) for name in table["variable"]]
    panels = [
        Dots(
            title=title,
            unit=f"mean |contribution|, {material.unit}",
            value=table[column].tolist(),
            low=table[f"{column}_low"].tolist(),
            high=table[f"{column}_high"].tolist(),
        )
        for column, title in (
            ("per_subject", "Per subject"),
            ("per_measurement", "Per measurement"),
        )
    ]
    rows = [
        [
            name,
            _interval(row, "per_subject"),
            _interval(row, "per_measurement"),
            f"{int(row['measurements']):,}",
        ]
        for name, row in zip(labels, table.to_dict("records"), strict=True)
    ]
    return {
        "chart": dot_chart(
            "ranking",
            "Mean absolute contribution of each variable, per subject and per measurement",
            f"{len(labels)} variables, the largest per subject first. The numbers stand in the "
            "table.",
            labels,
            panels,
        ),
        "caption": "Dots: mean absolute contribution. Lines: 95 % bootstrap intervals over "
        "subjects. Per subject, variables that are measured often rank higher; per measurement "
        "they do not.",
        "first": labels[:3],
        "tables": [
            Table(
                f"Mean absolute contribution in {material.unit} [95 % interval over subjects]",
                ["Variable", "Per subject", "Per measurement", "Measurements"],
                rows,
                (1, 2, 3),
            )
        ],
    }


def _strip(material: Material) -> dict[str, Any] | None:
    """A row of dots a variable: contribution across, thirds of its values told by the dot."""
    if material.attributions.players != "event":
        return None  # a contribution of several values together has no value to be told by
    events = material.attributions.events.query("kind == 'observation'")
    events = events.astype({"variable": str})
    table = material.attributions.by_variable(n_resamples=2)
    names = table.loc[table["kind"] == "observation", "variable"].astype(str).tolist()[:SWARMED]
    if not names:
        return None
    shown = events.loc[events["variable"].isin(names)]
    size = shown["attribution"].to_numpy(dtype=float)
    left, right, top = 284, 880, 40
    chart = Chart(
        "strip",
        "Contribution of each measurement, by variable and by third of its values",
        f"{len(names)} variables, one row each; a dot is a measurement. The numbers stand in the "
        "table.",
        900,
        top + ROW * len(names) + 46,
    )
    ends = nice_range(min(float(size.min()), 0.0), max(float(size.max()), 0.0))
    panel = Panel(chart, left, top, right, top + ROW * len(names), ends, (len(names), 0.0))
    panel.x_axis(f"contribution of one measurement, {material.unit}", nice_ticks(*ends, most=8))
    panel.rules("l3", [0.0])
    _legend(chart, left)
    rows, thinned = [], False
    for position, name in enumerate(names):
        own = shown.loc[shown["variable"] == name]
        chart.text(left - 12, top + ROW * (position + 0.5) + 4,
                   shortened(material.label(name), (left - 16) / LABEL_WIDTH), "e")  # fmt: skip
        attribution, third = own["attribution"].to_numpy(float), _thirds(own["value"])
        every = max(1, -(-len(attribution) // MOST_DOTS))
        thinned |= every > 1
        # evenly through the sorted contributions, so that what is drawn keeps their shape
        order = np.argsort(attribution, kind="stable")[every // 2 :: every]
        x = np.array([panel.across(value) for value in attribution[order]])
        y = swarm(x.tolist(), DOT, step=3, most=ROW / 2 - 3) + top + ROW * (position + 0.5)
        for number, style in enumerate(("s0", "s1", "s2")):
            which = third[order] == number
            _dots(chart, style, x[which], y[which])
        median = [
            signed(float(np.median(attribution[third == number])))
            if (third == number).any()
            else "–"
            for number in range(len(THIRDS))
        ]
        rows.append([material.label(name), f"{len(attribution):,}", *median])
    words = (
        "One dot a measurement; to the right it moved the output up, to the left down. Hollow: "
        "lowest third of the values of its variable; half filled: middle; filled: highest third."
    )
    if thinned:
        words += f" Of variables with more than {MOST_DOTS} measurements, evenly chosen ones."
    return {
        "chart": chart,
        "caption": words,
        "tables": [
            Table(
                "Median contribution of a measurement, by third of the values of its variable",
                ["Variable", "Measurements", *(f"{third} values" for third in THIRDS)],
                rows,
                (1, 2, 3, 4),
            )
        ],
    }


def _legend(chart: Chart, left: float | int) -> None:
    x = left
    for style, word in (("s0", "low"), ("s1", "middle"), ("s2", "high values of the variable")):
        _dots(chart, style, np.array([x + 4.0]), np.array([18.0]))
        chart.text(x + 14, 22, word)
        x += 14 + LABEL_WIDTH * len(word) + 22


def _dots(chart: Chart, style: str, x: np.ndarray, y: np.ndarray) -> None:
    """Dots as the ends of lines of no length; a ring is a dot with a smaller one on it."""
    d = dots(list(zip(x.tolist(), y.tolist(), strict=True)))
    chart.path(style, d)
    if style != "s2":
        chart.path(f"{style} in", d)


def _thirds(value) -> np.ndarray:
    """Third of each value among those of its variable; equal values share one."""
    rank = value.rank(method="average", pct=True).to_numpy()
    return np.where(np.isnan(rank), -1, np.clip((rank * 3 - 1e-9).astype(int), 0, 2))


def _interval(row: dict[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = significant(row[name])
    return f"{text} [{significant(low)}, {significant(high)}]" if np.isfinite(low) else text
