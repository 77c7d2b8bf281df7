"""One subject's page: the output in words, what was measured, what moved it, and the checks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution import Attributions
from clinode.cohort import Variable
from clinode.errors import printable
from clinode.report.answers import Answer
from clinode.report.opinions import member_ranges, opinions_table
from clinode.report.timeline import label, timeline
from clinode.report.wording import contribution_unit, hours, measured, signed
from clinode.statistics import wilson_interval

TOP_EVENTS = 12
MOST_SINGLE = 3000  # values told one by one
SIMILAR = 100  # records around this output that "a similar output" means, at most
SMALLEST_CELL = 11  # counts below are not shown


@dataclass(frozen=True, eq=False, kw_only=True)
class Beside:
    """What stands on a subject's page beside its own map; nothing of it has to be there.

    Args:
        fans: `subject_fans` of it.
        kinds: `kinds_of_subject` of it.
        changes: `changes_table` of it.
        members: Its events in the map of each member of an ensemble.
        others: Maps under other baselines or methods, each with its events there.
        no_fans, no_kinds, no_changes: Why they are not there, in words.
    """

    fans: dict[str, Any] | None = None
    kinds: dict[str, Any] | None = None
    changes: dict[str, Any] | None = None
    members: Sequence[pd.DataFrame] = ()
    others: Sequence[tuple[Attributions, pd.DataFrame]] = field(default=())
    no_fans: str = ""
    no_kinds: str = ""
    no_changes: str = ""


def subject_page(
    *,
    attributions: Attributions,
    events: pd.DataFrame,
    gate: Mapping[str, Any],
    answer: Answer,
    beside: Beside,
    variables: Mapping[str, Variable],
    known: list[str],
    seen: list[str],
    scored: pd.DataFrame | None,
) -> dict[str, Any]:
    """What the template of a subject's page prints.

    Args:
        attributions: Of all subjects.
        events: The subject's rows of `Attributions.to_pandas()`, with treatment ends in `end`.
        gate: The subject's row of `Attributions.gates`.
        answer: What the model says of it.
        beside: What else there is.
        variables: Schema variables, statics and inputs by name.
        known: Names of the variables that the model reads.
        seen: The variable of each value at or before the prediction time.
        scored: Columns probability and outcome of this cohort, or None without outcomes.
    """
    prediction_time = float(gate["prediction_time"])
    unit = contribution_unit(printable(attributions.scale))
    page: dict[str, Any] = {
        "prediction_time": hours(prediction_time),
        "withheld": str(gate["why"]) if gate["withheld"] else "",
        "risk": {
            "percent": answer.headline,
            "words": answer.words,
            "similar": None if answer.risk is None else _similar(answer.risk, scored),
            "worked": answer.worked,
            "spread": answer.spread,
            "chart": answer.chart,
            "tables": answer.tables,
        },
        "unit": unit,
        "players": attributions.players,
        "beside": beside,
        "absent": [label(variables.get(n), n) for n in known if n not in set(seen)],
        "gates": _gates(gate, events, seen, attributions),
        "opinions": None,
        "ranges": "",
    }
    if gate["withheld"]:
        return page
    moved = events.iloc[np.argsort(-events["attribution"].abs().to_numpy(), kind="stable")]
    top = moved.head(TOP_EVENTS)
    drawn = attributions.players == "event"
    ranges = member_ranges(top, beside.members)
    told = [_told(row, variables, attributions.players) for row in top.to_dict("records")]
    for k, row in enumerate(told):
        row["range"] = "" if ranges is None else _range(ranges[0][k], ranges[1][k])
    return page | {
        "timeline": timeline(events, prediction_time, variables) if drawn else None,
        "top": told,
        "ranges": "" if ranges is None else f"Range of {ranges[2]} members",
        "by_variable": _sums(events, moved.head(MOST_SINGLE), variables, attributions.players),
        "single": (
            "each"
            if len(moved) <= MOST_SINGLE
            else f"the {MOST_SINGLE} with the largest contributions of {len(moved)}"
        ),
        "opinions": opinions_table([(attributions, events), *beside.others], variables),
    }


def _range(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not in all"
    return f"{signed(low)} to {signed(high)}"


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


def _told(
    row: Mapping[str, Any], variables: Mapping[str, Variable], players: str
) -> dict[str, str]:
    name = str(row["variable"])
    variable = variables.get(name)
    attribution = float(row["attribution"])
    direction, style = _direction(attribution)
    return {
        "when": _when(row, players),
        "name": printable(variable.label or name) if variable else printable(name),
        "value": _value(row["value"], name, variable),
        "reference": _reference(variable),
        "direction": direction,
        "style": style,
        "contribution": signed(attribution),
    }


def _when(row: Mapping[str, Any], players: str) -> str:
    time = float(row["time"])
    if row["kind"] == "static":
        return "on record"
    if players == "variable":
        return "all together"
    return f"stretch from {hours(time)}" if players == "window" else hours(time)


def _value(value: object, name: str, variable: Variable | None, *, with_unit: bool = True) -> str:
    if not isinstance(value, int | float | np.number):
        return printable(value)
    number = float(value)
    if math.isnan(number):
        return "–"  # of several values together there is not one
    if name.lower() == "age" and number >= 90:
        return "90+ years"  # ages from 90 identify; they are pooled
    if not with_unit or variable is None or variable.unit == "1":
        return measured(number)
    return f"{measured(number)} {printable(variable.unit)}"


def _reference(variable: Variable | None) -> str:
    if variable is None or variable.normal is None:
        return "–"
    return f"{measured(variable.normal[0])} to {measured(variable.normal[1])}"


def _direction(attribution: float) -> tuple[str, str]:
    if abs(attribution) < 0.005:
        return "none", "quiet"
    return ("▲ moved up", "up") if attribution > 0 else ("▼ moved down", "down")


def _sums(
    events: pd.DataFrame, told: pd.DataFrame, variables: Mapping[str, Variable], players: str
) -> list[dict[str, Any]]:
    """Of each variable the sum of all `events`, and one by one those of them that are `told`."""
    names = events.assign(name=events["variable"].astype(str))
    table = names.groupby("name").agg(total=("attribution", "sum"), count=("attribution", "size"))
    table = table.assign(size=table["total"].abs())
    single = dict(list(told.groupby(told["variable"].astype(str), sort=False)))
    rows = []
    for name, total, count, _ in table.sort_values(
        "size", ascending=False, kind="stable"
    ).itertuples():
        direction, style = _direction(float(total))
        variable = variables.get(str(name))
        own = single.get(str(name), told.head(0)).sort_values("time", kind="stable")
        rows.append(
            {
                "name": printable(variable.label or name) if variable else printable(name),
                "label": label(variable, str(name)),
                "count": int(count),
                "mark": direction[:1] if style != "quiet" else "",
                "style": style,
                "contribution": signed(float(total)),
                "each": "; ".join(
                    _one(row, str(name), variable, players) for row in own.to_dict("records")
                ),
            }
        )
    return rows


def _one(row: Mapping[str, Any], name: str, variable: Variable | None, players: str) -> str:
    """A value among those of its variable: when, what, and what it contributed if anything."""
    text = _when(row, players).removesuffix(" h")
    if players == "event":
        text += f": {_value(row['value'], name, variable, with_unit=False)}"
    contribution = signed(float(row["attribution"]))
    return text if contribution == signed(0.0) else f"{text} ({contribution})"


def _gates(
    gate: Mapping[str, Any], events: pd.DataFrame, seen: list[str], attributions: Attributions
) -> list[dict[str, str]]:
    gap, tolerance = float(gate["gap"]), attributions.tolerance
    rows = [
        (
            "Completeness: contributions sum to the change of the output",
            f"gap {100 * gap:.2g} %" if math.isfinite(gap) else "undefined",
            f"at most {100 * tolerance:g} %",
            math.isfinite(gap) and gap <= tolerance,
        )
    ]
    if not gate["withheld"]:
        finite = bool(np.isfinite(events["attribution"]).all())
        rows.append(("Every contribution is a finite number", "yes" if finite else "no", "yes",
                     finite))  # fmt: skip
        own = events.loc[events["kind"] == "observation", "variable"].astype(str)
        if attributions.players == "event":
            rows.append(
                (
                    "The map holds the measured events and no others",
                    f"{len(own)} events",
                    f"{len(seen)} measured",
                    len(own) == len(seen),
                )
            )
        else:
            rows.append(
                (
                    "The table holds the measured variables and no others",
                    f"{own.nunique()} variables",
                    f"{len(set(seen))} measured",
                    set(own) == set(seen),
                )
            )
    return [
        {"name": name, "found": found, "demanded": demanded, "result": "pass" if ok else "fail"}
        for name, found, demanded, ok in rows
    ]
