"""The forecast fan of each measured variable: what was measured, then what the model expects.

A small picture a variable, in its own unit: measured points before the prediction time, then the
median with the intervals of 50 and 90 %. A model without a task of forecasts has a decoder, trained
beside its task on what is measured next; it gives a course, and no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from clinode.attribution import Attributions
from clinode.attribution.changes import explained_records
from clinode.cohort import Cohort, Forecast, Variable
from clinode.report.charts import Chart, Panel, nice_range, nice_ticks
from clinode.report.tables import Table
from clinode.report.timeline import label
from clinode.report.wording import measured, significant
from clinode.training import Ensemble, Run
from clinode.training.tasks import work_of

LEVELS = (0.5, 0.9)
BOUNDS = ("low50", "high50", "low90", "high90")
N_HOURS = 4  # of the fan: every third of twelve hours; the course between is close to straight
COURSE_SHARE = 0.125  # of the training window that a decoder's course goes on for
HISTORY = 3.0  # horizons before the prediction time that are drawn, of a forecast
COURSE_HISTORY = 0.5  # of the training window, of a course
WIDTH, HEIGHT = 300, 168
LEFT, RIGHT, TOP, BOTTOM = 52, 290, 24, 128
MOST_DRAWN = 120  # measured points of one variable; of more, every so manieth
FIRST, HOURS = "f0", "hours"
_BATCH = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Fans:
    """What the pages say of the hours after the prediction time.

    Args:
        ahead: One row an explained subject, hour and variable: subject_id, time (h), variable,
            value, and low50, high50, low90, high90, NaN without an interval.
        history: Hours before the prediction time that are drawn.
        horizon: Hours that it reaches.
        has_interval: Whether it has intervals.
        words: What the pictures show, in words.
    """

    ahead: pd.DataFrame
    history: float
    horizon: float
    has_interval: bool
    words: str


def forecast_fans(asked: Run | Ensemble, cohort: Cohort, attributions: Attributions) -> Fans:
    """Ask for the fans of every explained subject at once.

    Args:
        asked: A run that forecasts; where it does not, its decoder is asked.
        cohort: That was explained.
        attributions: Whose subjects and prediction times count.

    Raises:
        ArgumentError: The run forecasts at other times than those explained.
    """
    cohort = cohort.select(attributions.gates["subject_id"].tolist())
    if isinstance(asked.task, Forecast):
        return _forecasts(asked, cohort, attributions)
    return _courses(asked, cohort, attributions)


def _forecasts(asked: Run | Ensemble, cohort: Cohort, attributions: Attributions) -> Fans:
    records, _ = explained_records(asked, cohort, attributions)
    horizon = float(asked.task.reach)
    hours = horizon * np.arange(1, N_HOURS + 1) / N_HOURS
    tables = []
    for level in LEVELS:
        work = work_of(asked.task).with_level(level)
        tables.append(work.predict(asked.members, records, hours.tolist()))
    wanted = attributions.gates[["subject_id", "prediction_time"]]
    inner, outer = tables
    ahead = outer.rename(columns={"low": "low90", "high": "high90"})
    ahead = ahead.assign(low50=inner["low"], high50=inner["high"]).astype({"variable": str})
    ahead = ahead.merge(wanted, on=["subject_id", "prediction_time"])
    calibrated = asked.members[0].calibration is not None
    how = (
        "The intervals were calibrated on subjects set aside from the fit, so that about so many "
        "of their values lay within."
        if calibrated
        else "The intervals are the model's own; they were not calibrated on other subjects."
    )
    several = (
        f" The {len(asked.members)} members of the ensemble are taken together: where they "
        "disagree, the intervals widen."
        if len(asked.members) > 1
        else ""
    )
    words = (
        f"Dots: measured. Line: forecast for the {horizon:g} h after the prediction time; dark "
        f"band: 50 % interval, light band: 90 % interval, each hour and variable by itself. {how}"
        f"{several} Band from side to side: reference interval, where one is known."
    )
    return Fans(
        ahead=ahead,
        history=HISTORY * horizon,
        horizon=horizon,
        has_interval=True,
        words=words,
    )


def _courses(run: Run | Ensemble, cohort: Cohort, attributions: Attributions) -> Fans:
    """What the decoders of all members expect, meaned, on the way on from the prediction time."""
    records, positions = explained_records(run, cohort, attributions)
    schema = records.schema
    horizon = COURSE_SHARE * schema.window
    hours = horizon * np.arange(0, N_HOURS + 1) / N_HOURS
    names = np.asarray(schema.variables, dtype=object)
    expected = np.zeros((len(positions), len(hours), len(names)))
    order = np.argsort(-records.lengths[positions], kind="stable")
    with torch.no_grad():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            for member in run.members:
                batch = records.batch(positions[rows], device=member.device)
                later = batch.prediction_time.unsqueeze(1) + torch.from_numpy(hours).to(
                    batch.prediction_time
                )
                state = member.model.latent(batch, later)
                shown = member.model.decoder(state).double().cpu().numpy()
                expected[rows] += shown / len(run.members)
    subject, hour, variable = (part.ravel() for part in np.indices(expected.shape))
    gates = attributions.gates
    ahead = pd.DataFrame(
        {
            "subject_id": gates["subject_id"].to_numpy()[subject],
            "time": gates["prediction_time"].to_numpy()[subject] + hours[hour],
            "variable": names[variable],
            "value": schema.restore(variable, expected.ravel()),
            **dict.fromkeys(BOUNDS, np.nan),
        }
    )
    words = (
        "This model was not trained to forecast. Dots: measured. Line: what its decoder, trained "
        "beside the outcome on what is measured next, expects for the "
        f"{horizon:g} h after the prediction time. No interval is known for this line, and none "
        "is drawn. Band from side to side: reference interval, where one is known."
    )
    return Fans(
        ahead=ahead,
        history=COURSE_HISTORY * schema.window,
        horizon=horizon,
        has_interval=False,
        words=words,
    )


def subject_fans(
    fans: Fans,
    own: pd.DataFrame,
    history: pd.DataFrame,
    prediction_time: float,
    variables: Mapping[str, Variable],
    first: str | None = None,
) -> dict[str, Any] | None:
    """The pictures of one subject, and the table that says the same.

    Args:
        fans: Of all subjects.
        own: The subject's rows of `fans.ahead`.
        history: time and variable and value of what was measured by the prediction time.
        prediction_time: Hours.
        variables: Of the schema, by name.
        first: A variable that comes first, the explained one.

    Returns:
        None where nothing was measured.
    """
    seen = {str(name): part for name, part in history.groupby("variable", observed=True)}
    ahead = {str(name): part for name, part in own.groupby("variable", observed=True)}
    names = [n for n in dict.fromkeys(own["variable"].astype(str)) if n in seen]
    names.sort(key=lambda name: name != first)
    if not names:
        return None
    since = max(
        prediction_time - fans.history,
        min(*history["time"].tolist(), prediction_time - fans.horizon),
    )
    pictures = [
        _picture(
            f"f{k}", seen[n], ahead[n], since, prediction_time, variables.get(n), n,
            fans.has_interval,
        )
        for k, n in enumerate(names)
    ]  # fmt: skip
    return {
        "charts": pictures,
        "words": fans.words,
        "table": _table(names, ahead, prediction_time, variables, fans.has_interval),
    }


def _picture(
    name: str,
    seen: pd.DataFrame,
    ahead: pd.DataFrame,
    since: float,
    prediction_time: float,
    variable: Variable | None,
    own_name: str,
    has_interval: bool,
) -> Chart:
    title = label(variable, own_name)
    shown = seen[seen["time"] >= since]
    step = -(-len(shown) // MOST_DRAWN) if len(shown) else 1
    shown = shown.iloc[::-1].iloc[::step]  # the last measurement always
    value, time = ahead["value"].to_numpy(dtype=float), ahead["time"].to_numpy(dtype=float)
    bounds = ahead[["low90", "high90"]].to_numpy(dtype=float)
    numbers = [*shown["value"].tolist(), *value.tolist(), *bounds[np.isfinite(bounds)].tolist()]
    finite = [n for n in numbers if np.isfinite(n)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if variable is not None and variable.normal is not None:  # small changes stay small
        least = (variable.normal[1] - variable.normal[0]) / 2
        missing = max(least - (high - low), 0.0) / 2
        low, high = low - missing, high + missing
    low, high = nice_range(low, high)
    end = float(time.max())
    last = "nothing here" if not len(shown) else measured(float(shown["value"].iloc[0]))
    closing = significant(float(value[-1]), 3)
    if has_interval:
        closing += (
            f" (90 % interval {significant(bounds[-1, 0], 3)} to {significant(bounds[-1, 1], 3)})"
        )
    told = f"{title}: last {last}, in {end - prediction_time:g} h {closing}"
    chart = Chart(name, told, "", WIDTH, HEIGHT)  # a table tells the rest of all pictures together
    panel = Panel(chart, LEFT, TOP, RIGHT, BOTTOM, (since, end), (low, high))
    if variable is not None and variable.normal is not None:
        panel.belt("ref", *variable.normal)
    if name == FIRST:  # every picture of the page has the same hours
        chart.open_group(HOURS)
        panel.x_axis("hours since time zero", nice_ticks(since, end, most=5))
        panel.rules("now", [prediction_time])
        chart.close_group()
    else:
        chart.use_group(HOURS)
    panel.y_axis("", nice_ticks(low, high, most=3))
    if has_interval:
        for level in (90, 50):
            panel.band(
                "band", time, ahead[f"low{level}"].to_numpy(), ahead[f"high{level}"].to_numpy()
            )
    panel.line("l1", time, value)
    panel.points("dot", shown["time"].to_numpy(), shown["value"].to_numpy())
    chart.text(0, 14, title, "b")
    return chart


def _table(
    names: Sequence[str],
    ahead: Mapping[str, pd.DataFrame],
    prediction_time: float,
    variables: Mapping[str, Variable],
    has_interval: bool,
) -> Table:
    times = ahead[names[0]]["time"].to_numpy(dtype=float)
    rows = []
    for name in names:
        cells = []
        for row in ahead[name].to_dict("records"):
            told = {c: significant(float(row[c]), 3) for c in ("value", *BOUNDS)}
            text = told["value"]
            if has_interval:
                text += (
                    f" [{told['low50']} to {told['high50']}; {told['low90']} to {told['high90']}]"
                )
            cells.append(text)
        rows.append([label(variables.get(name), name), *cells])
    hours = [f"+{time - prediction_time:g} h" for time in times]
    caption = "Expected value, by hours after the prediction time"
    if has_interval:
        caption += " [50 % interval; 90 % interval]"
    return Table(caption, ["Variable", *hours], rows, tuple(range(1, len(hours) + 1)))
