"""Page 4: whether risks mean what they say, what acting on them is worth, who is found and missed.

Curves are drawn through groups of at least eleven subjects with and without the outcome, so that
no step of a curve and no difference of two rows is about few.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.errors import printable
from clinode.evaluation import (
    Recalibration,
    at_threshold,
    decision_curve,
    hide_small,
    operating_points,
    risk_groups,
    smooth_calibration,
)
from clinode.evaluation.disclosure import SMALLEST_CELL
from clinode.evaluation.recalibration import MEASURES as RECALIBRATION_MEASURES
from clinode.report.charts import Chart, Panel, nice_range, nice_ticks
from clinode.report.material import SEED, Material
from clinode.report.tables import DASH, NOT_SHOWN, Table, interval
from clinode.report.wording import percent

FILE = "performance.html"
MEASURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}
N_BARS = 10  # of the histogram; twice as many for many predictions
MANY = 1000
TABLE_STEP = 5  # every fifth threshold of the decision curve stands in its table


def performance_page(material: Material) -> dict[str, Any]:
    """What the template prints."""
    at, why = material.threshold
    found = alerts(material)
    page: dict[str, Any] = {
        "alerts": found,
        "measures": measures_table(material),
        "differences": _differences(material),
        "recalibration": _recalibration(material.run.calibration),
        "threshold": percent(at),
        "threshold_words": why,
        "curves": None,
    }
    if material.scored is None:
        return page | {"missing": "this cohort carries no outcomes to compare with."}
    if min(len(np.unique(material.units)), len(material.observed)) < 2 * SMALLEST_CELL:
        return page | {"missing": "there are too few subjects to draw a curve."}
    groups = risk_groups(material.observed, material.predicted, material.units, at=at)
    page |= {
        "missing": "",
        "curves": {
            "calibration": _calibration(material, groups),
            "decision": _decision(material),
            "confusion": _confusion(material, found),
            "roc": None,
        },
    }
    if len(groups) > 1:
        points = operating_points(groups)
        page["curves"] |= {
            "roc": _roc(material, points),
            "precision": _precision(material, points),
            "points": _points_table(points),
        }
    return page


def measures_table(material: Material) -> Table | None:
    """Each measure of the model and of its baselines; None without known outcomes."""
    told = material.evaluation
    if told is None:
        return None
    baselines = told.get("baselines", {})
    rows = [
        [name, interval(told[m]), *(interval(baselines[b].get(m)) for b in baselines)]
        for m, name in MEASURES.items()
        if m in told
    ]
    caption = (
        f"{told['n_records']:,} predictions of {told['n_subjects']:,} subjects. Value [95 % "
        "interval over subjects]; beside the model, the trivial baselines fitted on the same "
        "training part"
    )
    names = [printable(name).replace("_", " ") for name in baselines]
    return Table(caption, ["Measure", "Model", *names], rows)


def _differences(material: Material) -> Table | None:
    told = material.evaluation
    if told is None or not told.get("difference"):
        return None
    against = told["difference"]
    names = [f"against {printable(name).replace('_', ' ')}" for name in against]
    rows = [
        [MEASURES[m], *(interval(against[b].get(m)) for b in against)]
        for m in ("auroc", "auprc", "brier")
        if m in told
    ]
    return Table("Model minus baseline, same resampled subjects", ["Measure", *names], rows)


def _recalibration(found: object) -> dict[str, Any] | None:
    """What speaks for the map that the run's risk goes through; None where it goes through none."""
    if not isinstance(found, Recalibration):
        return None
    names = {"log_loss": "Log loss", **MEASURES}
    rows = [
        [str(row["method"]), *(interval(row[m]) for m in RECALIBRATION_MEASURES)]
        for row in found.evidence
    ]
    return {
        "words": f"{found.verdict}. Fitted on {found.n_records:,} records that did not train the "
        f"model, {found.n_events:,} of them with the outcome.",
        "table": Table(
            'Cross-fitted on those records [95 % interval over subjects]; "none" is the model as '
            "it was fitted",
            ["Method", *(names[m] for m in RECALIBRATION_MEASURES)],
            rows,
        ),
    }


def _calibration(material: Material, groups: pd.DataFrame) -> dict[str, Any]:
    if len(groups) < 2:
        groups = groups.head(0)  # the whole cohort in one point says nothing of its parts
    group = _numbers(groups)
    high = [*group["high"], float(np.quantile(material.predicted, 0.995)), 0.05]
    ends = (0.0, min(nice_range(0.0, max(high))[1], 1.0))
    chart = Chart(
        "calibration",
        "Calibration, and how often each risk is given",
        "Observed frequency against predicted risk as a smooth curve and in "
        f"{len(groups)} groups, and below it how many predictions fall at each risk. The numbers "
        "stand in the table.",
        640,
        470,
    )
    top = Panel(chart, 70, 14, 620, 300, ends, ends)
    ticks = nice_ticks(*ends)
    top.x_axis("", ticks, as_percent=True)
    top.y_axis("Observed frequency", ticks, as_percent=True)
    top.line("l3", ends, ends)
    first, last = np.quantile(material.predicted, (0.05, 0.95)).tolist()
    at = np.linspace(first, last, 40)
    top.line("l2", at, smooth_calibration(material.observed, material.predicted, at))
    top.whiskers("i", group["predicted"], group["low"], group["high"])
    top.points("p", group["predicted"], group["observed"])
    bars = _bars(material, ends)
    _draw_bars(chart, bars, ends, ticks)
    middle = (bars.left + bars.right) / 2
    smooth = smooth_calibration(material.observed, material.predicted, middle)
    smooth = np.where((middle >= first) & (middle <= last), smooth, np.nan)
    words = "Dotted: predicted and observed agree. Dashed: local regression. "
    if len(groups):
        words += (
            "Points: groups of equal risk with 95 % Wilson intervals, each with eleven subjects "
            "on both sides at least. "
        )
    words += "Below: how many predictions fall at each risk"
    words += "; hollow bars stand for counts that are not shown." if bars.hidden.any() else "."
    return {
        "chart": chart,
        "caption": words,
        "tables": [*_group_tables(groups), _bars_table(bars, smooth)],
    }


@dataclass(frozen=True, eq=False)
class Bars:
    """A histogram of predicted risks.

    Args:
        left, right: (bar,) ends.
        n: (bar,) predictions.
        hidden: (bar,) whether that number is not shown.
    """

    left: np.ndarray
    right: np.ndarray
    n: np.ndarray
    hidden: np.ndarray


def _bars(material: Material, ends: tuple[float, float]) -> Bars:
    n_bars = 2 * N_BARS if len(material.predicted) >= MANY else N_BARS
    edges = np.linspace(*ends, n_bars + 1)
    place = np.clip(np.searchsorted(edges, material.predicted, side="right") - 1, 0, n_bars - 1)
    subjects = [len(np.unique(material.units[place == bar])) for bar in range(n_bars)]
    counts = np.bincount(place, minlength=n_bars)
    return Bars(edges[:-1], edges[1:], counts, hide_small(np.array(subjects)))


def _draw_bars(chart: Chart, bars: Bars, ends: tuple[float, float], ticks: list[float]) -> None:
    drawn = np.where(bars.hidden, SMALLEST_CELL - 1, bars.n)
    panel = Panel(chart, 70, 336, 620, 426, ends, nice_range(0.0, float(drawn.max())))
    panel.x_axis("Predicted risk", ticks, as_percent=True)
    panel.y_axis("Predictions", nice_ticks(*panel.y, most=2))
    for k in np.flatnonzero(bars.n):
        top = panel.up(float(drawn[k]))
        left, right = panel.across(bars.left[k]) + 1, panel.across(bars.right[k]) - 1
        style = "hollow" if bars.hidden[k] else "bar"
        chart.rect(style, left, top, right - left, panel.bottom - top)


def _group_tables(groups: pd.DataFrame) -> list[Table]:
    rows = [
        [
            percent(r["predicted"]),
            f"{100 * r['observed']:.0f} %",
            f"{100 * r['low']:.0f} to {100 * r['high']:.0f} %",
            f"{r['n']:,}",
        ]
        for r in groups.to_dict("records")
    ]
    columns = ["Mean predicted risk", "Observed", "95 % interval", "Predictions"]
    return [Table("Groups by predicted risk", columns, rows, (0, 1, 2, 3))] if rows else []


def _bars_table(bars: Bars, smooth: np.ndarray) -> Table:
    rows = [
        [
            f"{100 * bars.left[k]:.3g} to {100 * bars.right[k]:.3g} %",
            f"{100 * smooth[k]:.0f} %" if np.isfinite(smooth[k]) else DASH,
            NOT_SHOWN if bars.hidden[k] else f"{bars.n[k]:,}",
        ]
        for k in range(len(bars.n))
    ]
    return Table(
        "By predicted risk: the smooth curve in the middle, and the predictions",
        ["Predicted risk", "Observed, smooth", "Predictions"],
        rows,
        (1, 2),
    )


def _decision(material: Material) -> dict[str, Any]:
    facts = material.facts
    low, high = facts.lowest_threshold, facts.highest_threshold
    step = max(0.01, round((high - low) / 60, 2))
    thresholds = np.round(np.arange(low, high + 1e-9, step), 4)
    curve = decision_curve(
        material.observed,
        material.predicted,
        thresholds,
        subjects=material.units,
        n_resamples=material.n_resamples,
        seed=SEED,
    )
    shown = np.array([_both_sides(material, t) for t in thresholds])
    numbers = [c for c in curve.columns if c not in ("threshold", "all", "all_low", "all_high")]
    curve.loc[~shown, numbers] = np.nan
    chart = Chart(
        "decision",
        "Decision curve",
        "Net benefit of acting by the model, of acting on everybody and on nobody, at each "
        "threshold. The numbers stand in the table.",
        640,
        380,
    )
    line = _numbers(curve)
    best = float(np.nanmax([*line["model_high"], *line["all"], 0.02]))
    ends = nice_range(-0.15 * 100 * best, 100 * best)
    panel = Panel(chart, 70, 14, 620, 330, (low, high), ends)
    panel.x_axis("Preference: the risk from which one would act", nice_ticks(low, high),
                 as_percent=True)  # fmt: skip
    panel.y_axis("Benefit: net, per 100 predictions", nice_ticks(*ends))
    t = line["threshold"]
    panel.band("band", t, 100 * line["model_low"], 100 * line["model_high"])
    panel.line("l2", t, 100 * np.where(line["all"] >= ends[0] / 100, line["all"], np.nan))
    panel.line("l3", (low, high), (0.0, 0.0))
    panel.line("l1", t, 100 * line["model"])
    chart.text(616, 30, "solid, with its interval: the model", "e")
    chart.text(616, 46, "dashed: act on everybody", "e")
    chart.text(616, 62, "dotted: act on nobody", "e")
    rows = [
        [
            percent(r["threshold"]),
            _per_hundred(r, "model"),
            f"{100 * r['all']:.1f}".replace("-", "−"),
            _per_hundred(r, "gain"),
            f"{100 * r['alerts']:.0f}" if np.isfinite(r["alerts"]) else NOT_SHOWN,
        ]
        for r in curve.to_dict("records")
        if round(r["threshold"] * 100, 6) % TABLE_STEP == 0 or len(curve) <= 12
    ]
    left_out = (
        ""
        if shown.all()
        else f" Thresholds with fewer than {SMALLEST_CELL} subjects on one side are left out."
    )
    return {
        "chart": chart,
        "words": f"From {percent(low)} to {percent(high)}, the range of thresholds "
        + ("named by the developer." if _is_named(material) else "taken where none was named."),
        "caption": "Benefit: outcomes found, less alerts for nothing at the rate that the "
        "threshold sets, per 100 predictions. Band: 95 % interval over subjects." + left_out,
        "tables": [
            Table(
                "Net benefit per 100 predictions [95 % interval over subjects]",
                ["Threshold", "Model", "Everybody", "Model, less the better of both", "Alerts"],
                rows,
                (0, 1, 2, 3, 4),
            )
        ],
    }


def _numbers(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(name): table[name].to_numpy(dtype=np.float64) for name in table.columns}


def _is_named(material: Material) -> bool:
    default = type(material.facts)()
    own = material.facts
    return (own.lowest_threshold, own.highest_threshold) != (
        default.lowest_threshold,
        default.highest_threshold,
    )


def _both_sides(material: Material, threshold: float) -> bool:
    alert = material.predicted >= threshold
    sides = (material.units[alert], material.units[~alert])
    return all(len(np.unique(side)) == 0 or len(np.unique(side)) >= SMALLEST_CELL for side in sides)


def _per_hundred(row: dict[str, Any], name: str) -> str:
    if not np.isfinite(row[name]):
        return NOT_SHOWN
    text = f"{100 * row[name]:.1f}"
    if np.isfinite(row[f"{name}_low"]):
        text += f" [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"
    return text.replace("-", "−")


def _roc(material: Material, points: pd.DataFrame) -> Chart:
    chart, panel = _square(
        "roc",
        "ROC curve",
        "Share of subjects with the outcome that an alert finds, against the share of the others "
        "for whom it is raised.",
    )
    panel.x_axis("False alerts: 1 − specificity", nice_ticks(0, 1), as_percent=True)
    panel.y_axis("Found: sensitivity", nice_ticks(0, 1), as_percent=True)
    panel.line("l3", (0, 1), (0, 1))
    point = _numbers(points)
    x, y = [*(1 - point["specificity"]), 0.0], [*point["sensitivity"], 0.0]
    panel.line("l1", x, y)
    panel.points("p", x[1:-1], y[1:-1])
    told = material.evaluation
    if told is not None and "auroc" in told:
        chart.text(panel.right - 6, panel.bottom - 10, f"AUROC {interval(told['auroc'])}", "e")
    return chart


def _precision(material: Material, points: pd.DataFrame) -> Chart:
    chart, panel = _square(
        "precision",
        "Precision-recall curve",
        "Share of alerts that are right, against the share of subjects with the outcome that they "
        "find.",
    )
    panel.x_axis("Found: recall", nice_ticks(0, 1), as_percent=True)
    panel.y_axis("Alerts that are right: precision", nice_ticks(0, 1), as_percent=True)
    frequency = float(points["ppv"].iloc[0])
    panel.line("l3", (0, 1), (frequency, frequency))
    point = _numbers(points)
    panel.line("l1", point["sensitivity"], point["ppv"])
    panel.points("p", point["sensitivity"], point["ppv"])
    told = material.evaluation
    if told is not None and "auprc" in told:
        chart.text(panel.right - 6, panel.top + 14, f"AUPRC {interval(told['auprc'])}", "e")
    return chart


def _square(name: str, title: str, words: str) -> tuple[Chart, Panel]:
    chart = Chart(name, title, words + " The numbers stand in the table.", 460, 430)
    return chart, Panel(chart, 70, 14, 440, 384, (0.0, 1.0), (0.0, 1.0))


def _points_table(points: pd.DataFrame) -> Table:
    rows = [
        [
            percent(r["threshold"]),
            f"{100 * r['sensitivity']:.0f} %",
            f"{100 * r['specificity']:.0f} %",
            f"{100 * r['ppv']:.0f} %",
            f"{100 * r['alerts']:.0f}",
        ]
        for r in points.to_dict("records")
    ]
    return Table(
        "The corners of both curves; the first row raises an alert for everybody",
        ["Threshold", "Sensitivity", "Specificity", "Precision", "Alerts per 100 predictions"],
        rows,
        (0, 1, 2, 3, 4),
    )


def alerts(material: Material) -> dict[str, dict[str, Any]] | None:
    """What an alert means, each share as `Estimate.to_dict`; None where a cell has too few."""
    cells = _cells(material)
    sizes = [len(np.unique(material.units[mask])) for mask in cells.values()]
    if material.scored is None or any(0 < size < SMALLEST_CELL for size in sizes):
        return None
    found = at_threshold(
        material.observed,
        material.predicted,
        material.threshold[0],
        subjects=material.units,
        n_resamples=material.n_resamples,
        seed=SEED,
    )
    return {name: estimate.to_dict() for name, estimate in found.items()}


def _cells(material: Material) -> dict[tuple[bool, bool], np.ndarray]:
    """Records by whether there is an alert, and whether the outcome followed."""
    alert, had = material.predicted >= material.threshold[0], material.observed == 1
    return {(a, h): (alert == a) & (had == h) for a in (True, False) for h in (True, False)}


def _confusion(material: Material, found: dict[str, dict[str, Any]] | None) -> dict[str, Table]:
    count = {
        key: NOT_SHOWN if found is None else f"{int(mask.sum()):,}"
        for key, mask in _cells(material).items()
    }
    rows = [
        [word, count[a, True], count[a, False]]
        for word, a in (("Alert", True), ("No alert", False))
    ]
    names = {
        "sensitivity": "Sensitivity: of 100 with the outcome, alerts for",
        "specificity": "Specificity: of 100 without it, no alert for",
        "ppv": "Precision: of 100 alerts, followed by the outcome",
        "npv": "Of 100 without an alert, not followed by it",
        "alerts_per_100": "Alerts per 100 predictions",
    }
    few = f"{NOT_SHOWN}: fewer than {SMALLEST_CELL} subjects in a cell"
    shares = [
        [
            words,
            few
            if found is None
            else interval(found[name], digits=0, factor=1 if name == "alerts_per_100" else 100),
        ]
        for name, words in names.items()
    ]
    at = percent(material.threshold[0])
    return {
        "counts": Table(
            f"Predictions, by alert at a risk of {at} and above, and outcome",
            ["By the model", "Outcome followed", "Outcome did not follow"],
            rows,
            (1, 2),
        ),
        "shares": Table(
            "What an alert means [95 % interval over subjects]", ["Measure", "Of 100"], shares, (1,)
        ),
    }
