"""One subject's page: the output in words, what was measured, what moved it, and the checks."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Variable
from clinode.errors import printable
from clinode.evaluation import Recalibration
from clinode.report.timeline import label, timeline
from clinode.report.wording import hours, measured, percent, probability, signed
from clinode.statistics import wilson_interval

TOP_EVENTS = 12
MOST_TABLE_ROWS = 400
SIMILAR = 100  # records around this output that "a similar output" means, at most
SMALLEST_CELL = 11  # counts below are not shown


def subject_page(
    *,
    events: pd.DataFrame,
    gate: Mapping[str, Any],
    variables: Mapping[str, Variable],
    known: list[str],
    present: set[str],
    n_present: int,
    scored: pd.DataFrame | None,
    tolerance: float,
    recalibration: Recalibration | None = None,
) -> dict[str, Any]:
    """What the template of a subject's page prints.

    Args:
        events: The subject's rows of `Attributions.to_pandas()`, with treatment ends in `end`.
        gate: The subject's row of `Attributions.gates`.
        variables: Schema variables, statics and inputs by name.
        known: Names of the variables that the model reads.
        present: Names of the variables with a value at or before the prediction time.
        n_present: How many values that are.
        scored: Columns probability and outcome of this cohort, or None without outcomes.
        tolerance: The completeness gap above which a map is withheld.
        recalibration: What the model's logit goes through before it is shown as a risk.
    """
    output, base = float(gate["output"]), float(gate["base"])
    prediction_time = float(gate["prediction_time"])
    risk = probability(_recalibrated(output, recalibration))
    page: dict[str, Any] = {
        "prediction_time": hours(prediction_time),
        "withheld": str(gate["why"]) if gate["withheld"] else "",
        "risk": {
            "percent": percent(risk),
            "words": "probability that the model gives to the outcome of this record.",
            "similar": _similar(risk, scored),
            "worked": (
                f"At the baseline the model's output is {signed(base)} log-odds "
                f"({percent(probability(base))}). What was measured adds {signed(output - base)}, "
                f"which gives {signed(output)} log-odds ({percent(probability(output))})."
                + _then(risk, recalibration)
            ),
        },
        "absent": [label(variables.get(n), n) for n in known if n not in present],
        "gates": _gates(gate, events, n_present, tolerance),
    }
    if gate["withheld"]:
        return page
    moved = events.iloc[np.argsort(-events["attribution"].abs().to_numpy(), kind="stable")]
    shown = moved.head(MOST_TABLE_ROWS)
    return page | {
        "timeline": timeline(events, prediction_time, variables),
        "top": [_told(row, variables) for row in moved.head(TOP_EVENTS).to_dict("records")],
        "all": [_told(row, variables) for row in shown.to_dict("records")],
        "all_caption": (
            f"All {len(moved)} events, largest contribution first"
            if len(moved) <= MOST_TABLE_ROWS
            else f"The {MOST_TABLE_ROWS} largest of {len(moved)} events; the others sum to "
            f"{signed(float(moved['attribution'].iloc[MOST_TABLE_ROWS:].sum()))}"
        ),
        "by_variable": _sums(events, variables),
    }


def _recalibrated(output: float, recalibration: Recalibration | None) -> float:
    return output if recalibration is None else float(recalibration.apply(np.array([output]))[0])


def _then(risk: float, recalibration: Recalibration | None) -> str:
    if recalibration is None or recalibration.method == "none":
        return ""
    return f" Recalibrated on other subjects ({recalibration.method}), that reads {percent(risk)}."


def _similar(output: float, scored: pd.DataFrame | None) -> str:
    """How often the outcome followed among the records of this cohort with the nearest output."""
    if scored is None:
        return ""
    number = min(SIMILAR, max(len(scored) // 10, SMALLEST_CELL))
    if len(scored) < 2 * SMALLEST_CELL:
        return "This cohort is too small to say how often the outcome followed at a similar output."
    near = scored.iloc[np.argsort((scored["probability"] - output).abs().to_numpy(), kind="stable")]
    outcome = near["outcome"].head(number)
    low, high = wilson_interval(int(outcome.sum()), number)
    return (
        f"Among the {number} records of this cohort with the nearest output, the outcome followed "
        f"in about {100 * outcome.mean():.0f} of 100 "
        f"(95 % interval {100 * low:.0f} to {100 * high:.0f})."
    )


def _told(row: Mapping[str, Any], variables: Mapping[str, Variable]) -> dict[str, str]:
    name = str(row["variable"])
    variable = variables.get(name)
    attribution = float(row["attribution"])
    time = float(row["time"])
    direction, style = _direction(attribution)
    return {
        "when": hours(time) if math.isfinite(time) else "on record",
        "name": printable(variable.label or name) if variable else printable(name),
        "value": _value(row["value"], name, variable),
        "reference": _reference(variable),
        "direction": direction,
        "style": style,
        "contribution": signed(attribution),
    }


def _value(value: object, name: str, variable: Variable | None) -> str:
    if not isinstance(value, int | float | np.number):
        return printable(value)
    number = float(value)
    if name.lower() == "age" and number >= 90:
        return "90+ years"  # ages from 90 identify; they are pooled
    unit = "" if variable is None or variable.unit == "1" else f" {printable(variable.unit)}"
    return measured(number) + unit


def _reference(variable: Variable | None) -> str:
    if variable is None or variable.normal is None:
        return "–"
    return f"{measured(variable.normal[0])} to {measured(variable.normal[1])}"


def _direction(attribution: float) -> tuple[str, str]:
    if abs(attribution) < 0.005:
        return "none", "quiet"
    return ("▲ moved up", "up") if attribution > 0 else ("▼ moved down", "down")


def _sums(events: pd.DataFrame, variables: Mapping[str, Variable]) -> list[dict[str, Any]]:
    names = events.assign(name=events["variable"].astype(str))
    table = names.groupby("name").agg(total=("attribution", "sum"), count=("attribution", "size"))
    table = table.assign(size=table["total"].abs())
    rows = []
    for name, total, count, _ in table.sort_values(
        "size", ascending=False, kind="stable"
    ).itertuples():
        direction, style = _direction(float(total))
        variable = variables.get(str(name))
        rows.append(
            {
                "name": printable(variable.label or name) if variable else printable(name),
                "count": int(count),
                "direction": direction,
                "style": style,
                "contribution": signed(float(total)),
            }
        )
    return rows


def _gates(
    gate: Mapping[str, Any], events: pd.DataFrame, n_present: int, tolerance: float
) -> list[dict[str, str]]:
    gap = float(gate["gap"])
    rows = [
        (
            "Completeness: contributions sum to the change of the output",
            f"gap {100 * gap:.2g} %" if math.isfinite(gap) else "undefined",
            f"at most {100 * tolerance:g} %",
            math.isfinite(gap) and gap <= tolerance,
        )
    ]
    if not gate["withheld"]:
        n_told = list(events["kind"]).count("observation")
        finite = bool(np.isfinite(events["attribution"]).all())
        rows += [
            ("Every contribution is a finite number", "yes" if finite else "no", "yes", finite),
            (
                "The map holds the measured events and no others",
                f"{n_told} events",
                f"{n_present} measured",
                n_told == n_present,
            ),
        ]
    return [
        {"name": name, "found": found, "demanded": demanded, "result": "pass" if ok else "fail"}
        for name, found, demanded, ok in rows
    ]
