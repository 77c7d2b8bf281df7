"""What the model says of each explained subject, in the words of its task.

Of a label its risk, of survival the cumulative incidence of each cause, of a forecast the value of
the explained variable with its interval; of an ensemble how far its members lie apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from clinode.attribution import Attributions
from clinode.attribution.changes import explained_records
from clinode.cohort import Classify, Cohort, Forecast, Survive, Variable
from clinode.errors import ArgumentError, printable
from clinode.evaluation import Recalibration
from clinode.report.charts import Chart, Panel, nice_range, nice_ticks
from clinode.report.tables import Table
from clinode.report.timeline import label
from clinode.report.wording import outcome_words, percent, probability, signed, significant
from clinode.training import Ensemble, Run
from clinode.training.survival import incidences, intervals_of
from clinode.training.tasks import work_of

N_CURVE = 24  # hours at which a curve is drawn
LINES = ("l1", "l2", "l3")
ONE_FIT = "This is one fit with one seed: how far other fits would differ is not known."


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the page of one subject says of the output.

    Args:
        headline: The output, large.
        words: What it is.
        worked: From the baseline to the output.
        spread: How far the members of an ensemble lie apart.
        risk: The risk of a label, which records with a similar one are looked up by.
        chart: Curves of incidence, of survival.
        tables: Numbers behind the chart, or of the other labels.
    """

    headline: str
    words: str
    worked: str
    spread: str
    risk: float | None = None
    chart: Chart | None = None
    tables: tuple[Table, ...] = ()


def subject_answers(
    run: Run | Ensemble,
    cohort: Cohort,
    attributions: Attributions,
    variables: Mapping[str, Variable],
) -> list[Answer]:
    """One answer a row of `attributions.gates`.

    Args:
        run: That was explained.
        cohort: That it was asked about.
        attributions: Of it.
        variables: Of the schema, by name.

    Raises:
        ArgumentError: The run's task has no such page.
    """
    cohort = cohort.select(attributions.gates["subject_id"].tolist())
    task = run.task
    if isinstance(task, Classify):
        return _risks(run, task.labels, cohort, attributions)
    if isinstance(task, Survive):
        return _incidences(run, task.event, cohort, attributions)
    if isinstance(task, Forecast):
        return _forecasts(run, cohort, attributions, variables)
    kind = task.to_dict()["kind"]
    raise ArgumentError(f"there are no pages for the task {kind!r}", fix="explain one of its parts")


def _risks(
    run: Run | Ensemble, labels: tuple[str, ...], cohort: Cohort, attributions: Attributions
) -> list[Answer]:
    records, positions = explained_records(run, cohort, attributions)
    own = labels.index(attributions.outcome)
    tables = [work_of(run.task).predict((m,), records, None).iloc[positions] for m in run.members]
    names = ["probability", *(f"probability_{name}" for name in labels[1:])]
    together = work_of(run.task).predict(run.members, records, None).iloc[positions]
    probabilities = together[names].to_numpy(dtype=float)
    members = np.stack([table[names].to_numpy(dtype=float) for table in tables])
    found = run.calibration if isinstance(run.calibration, Recalibration) else None
    answers = []
    for k, gate in enumerate(attributions.gates.to_dict("records")):
        output, base = float(gate["output"]), float(gate["base"])
        shown = output if found is None else float(found.apply(np.array([output]))[0])
        risk = probability(shown)
        answers.append(
            Answer(
                headline=percent(risk),
                words="probability that the model gives to the outcome of this record.",
                worked=_worked(output, base) + _then(risk, found),
                spread=_spread([percent(p) for p in np.sort(members[:, k, own])]),
                risk=risk,
                tables=_labels(labels, probabilities[k], members[:, k]) if len(labels) > 1 else (),
            )
        )
    return answers


def _labels(
    labels: tuple[str, ...],
    told: Float[np.ndarray, " label"],
    members: Float[np.ndarray, "member label"],
) -> tuple[Table, ...]:
    rows = []
    for position, name in enumerate(labels):
        cells = [printable(name), percent(float(told[position]))]
        if len(members) > 1:
            low, high = members[:, position].min(), members[:, position].max()
            cells.append(f"{percent(low)} to {percent(high)}")
        rows.append(cells)
    heads = ["Outcome", "Probability", *(["Range of the members"] if len(members) > 1 else [])]
    return (Table("Every outcome that the model gives a probability to", heads, rows, (1, 2)),)


def _incidences(
    run: Run | Ensemble, event: str, cohort: Cohort, attributions: Attributions
) -> list[Answer]:
    records, positions = explained_records(run, cohort, attributions)
    intervals = intervals_of(records)
    asked = attributions.hours or intervals.horizon
    grid = np.linspace(0, intervals.ends[-1], N_CURVE + 1)[1:]
    hours = np.unique([*grid, *intervals.horizons, asked])
    members = np.stack([incidences((m,), records, hours)[positions] for m in run.members])
    curves = members.mean(axis=0)  # (subject, hour, cause)
    told = outcome_words(printable(attributions.outcome))
    cause = 0
    if attributions.outcome != event:
        cause = int(attributions.outcome.removeprefix(f"{event}, cause ")) - 1
    here = int(np.searchsorted(hours, asked))
    answers = []
    for k, gate in enumerate(attributions.gates.to_dict("records")):
        output, base = float(gate["output"]), float(gate["base"])
        risk = float(curves[k, here, cause])
        answers.append(
            Answer(
                headline=percent(risk),
                words=f"probability that the model gives to {told} within {asked:g} h after the "
                "prediction time.",
                worked=_worked(output, base),
                spread=_spread([percent(p) for p in np.sort(members[:, k, here, cause])]),
                chart=_curves(hours, members[:, k], asked, intervals.horizons),
                tables=(_curve_table(hours, curves[k], (*intervals.horizons, asked)),),
            )
        )
    return answers


def _curves(
    hours: Float[np.ndarray, " hour"],
    members: Float[np.ndarray, "member hour cause"],
    asked: float,
    horizons: tuple[float, ...],
) -> Chart:
    mean = members.mean(axis=0)
    end = float(hours[-1])
    top = max(nice_range(0.0, float(members.max()))[1], 0.05)
    causes = mean.shape[1]
    told = "; ".join(
        f"{_cause(c, causes)}: {percent(float(mean[-1, c]))} by {end:g} h" for c in range(causes)
    )
    chart = Chart("incidence", "Cumulative incidence of each kind of event", f"{told}.", 720, 300)
    panel = Panel(chart, 70, 24, 560, 244, (0.0, end), (0.0, min(top, 1.0)))
    panel.x_axis("hours after the prediction time", nice_ticks(0.0, end, most=8))
    panel.y_axis("probability", nice_ticks(0.0, min(top, 1.0), most=5), as_percent=True)
    x = [0.0, *hours]
    for c in range(causes):
        if len(members) > 1:
            low, high = members[:, :, c].min(axis=0), members[:, :, c].max(axis=0)
            panel.band("band", x, [0.0, *low], [0.0, *high])
        panel.line(LINES[c % len(LINES)], x, [0.0, *mean[:, c]])
    places = _apart([panel.up(float(mean[-1, c])) for c in range(causes)])
    for c in range(causes):
        words = f"{_cause(c, causes)}, {percent(float(mean[-1, c]))}"
        chart.text(566, places[c] + 4, words)
    panel.rules("now", [asked])
    chart.text(panel.across(asked), 16, f"explained: {asked:g} h", "m")
    panel.rules("l3", [h for h in horizons if h != asked])
    return chart


def _apart(places: list[float], least: float = 15.0) -> list[float]:
    """Heights of labels, moved so that none lies upon another."""
    order = sorted(range(len(places)), key=lambda k: -places[k])
    held: dict[int, float] = {}
    last = float("inf")
    for k in order:  # from the bottom of the picture upward
        held[k] = last = min(places[k], last - least)
    return [held[k] for k in range(len(places))]


def _curve_table(
    hours: Float[np.ndarray, " hour"],
    curves: Float[np.ndarray, "hour cause"],
    shown: tuple[float, ...],
) -> Table:
    n_causes = curves.shape[1]
    rows = []
    for hour in sorted({*shown, float(hours[-1])}):
        at = curves[int(np.searchsorted(hours, hour))]
        cells = [percent(float(p)) for p in (*at, 1 - at.sum())]
        rows.append([f"{hour:.3g} h", *cells])
    heads = ["Within", *(_cause(c, n_causes) for c in range(n_causes)), "No event"]
    caption = "Cumulative incidence by hours after the prediction time"
    return Table(caption, heads, rows, tuple(range(1, n_causes + 2)))


def _cause(number: int, n_causes: int) -> str:
    return "event" if n_causes == 1 else f"kind {number + 1}"


def _forecasts(
    run: Run | Ensemble,
    cohort: Cohort,
    attributions: Attributions,
    variables: Mapping[str, Variable],
) -> list[Answer]:
    records, positions = explained_records(run, cohort, attributions)
    name = forecast_variable(attributions)
    hours, work = attributions.hours or run.task.reach, work_of(run.task)
    schema = records.schema
    place = schema.variables.index(name)
    n_variables = len(schema.variables)

    def of_variable(members: Any) -> pd.DataFrame:
        # one hour: the table runs record by record, variable by variable
        table = work.predict(members, records, [hours])
        return table.iloc[positions * n_variables + place]

    together = of_variable(run.members)
    apart = np.stack([of_variable((m,))["value"].to_numpy(dtype=float) for m in run.members])
    variable = variables.get(name)
    unit = "" if variable is None or variable.unit == "1" else f" {printable(variable.unit)}"
    title = label(variable, name)
    calibrated = run.members[0].calibration is not None
    answers = []
    for k, gate in enumerate(attributions.gates.to_dict("records")):
        value, low, high = (float(together[c].iloc[k]) for c in ("value", "low", "high"))
        base, output = (
            float(schema.restore(np.array([place]), np.array([float(gate[c])]))[0])
            for c in ("base", "output")
        )
        change = float(gate["output"]) - float(gate["base"])
        answers.append(
            Answer(
                headline=significant(value, 3) + unit,
                words=f"forecast of {title} {hours:g} h after the prediction time; 90 % interval "
                f"{significant(low, 3)} to {significant(high, 3)}{unit}"
                f"{'' if calibrated else ', not calibrated on other subjects'}.",
                worked=f"At the baseline the forecast is {significant(base, 3)}{unit}. What was "
                f"measured adds {signed(change)} {_deviations(attributions)}, which gives "
                f"{significant(output, 3)}{unit}.",
                spread=_spread([significant(v, 3) + unit for v in np.sort(apart[:, k])]),
            )
        )
    return answers


def forecast_variable(attributions: Attributions) -> str:
    """The variable whose forecast was explained."""
    return attributions.outcome.removesuffix(f" after {attributions.hours:g} h")


def _deviations(attributions: Attributions) -> str:
    return printable(attributions.scale)


def _worked(output: float, base: float) -> str:
    return (
        f"At the baseline the model's output is {signed(base)} log-odds "
        f"({percent(probability(base))}). What was measured adds {signed(output - base)}, "
        f"which gives {signed(output)} log-odds ({percent(probability(output))})."
    )


def _then(risk: float, recalibration: Recalibration | None) -> str:
    if recalibration is None or recalibration.method == "none":
        return ""
    return f" Recalibrated on other subjects ({recalibration.method}), that reads {percent(risk)}."


def _spread(sorted_words: list[str]) -> str:
    if len(sorted_words) == 1:
        return ONE_FIT
    return (
        f"The {len(sorted_words)} members of the ensemble, which differ in their seed, give from "
        f"{sorted_words[0]} to {sorted_words[-1]} one by one."
    )
