"""Second opinions on one subject's map: other baselines and methods, other seeds, the kinds, and
which single value would have taken the output over a threshold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution import METHODS, Attributions
from clinode.cohort import Variable
from clinode.errors import printable
from clinode.report.charts import Chart, Panel, nice_range, nice_ticks
from clinode.report.tables import DASH, Table
from clinode.report.timeline import label
from clinode.report.wording import (
    BASELINES,
    hours,
    measured,
    percent,
    probability,
    signed,
    significant,
)

TOP = 5  # variables that opinions are compared on
NAMED = 3  # variables named of each
KINDS = ("values", "ordering", "timing")
KIND_WORDS = {
    "values": "what the values were",
    "ordering": "which tests were ordered",
    "timing": "when",
}


def opinions_table(
    named: Sequence[tuple[Attributions, pd.DataFrame]], variables: Mapping[str, Variable]
) -> dict[str, Any] | None:
    """The largest variables under each baseline or method, and how far they agree with the first.

    Args:
        named: The map of the page and the others, each with the subject's own events; events are
            empty where a map was withheld or the subject was not explained.
        variables: Of the schema, by name.

    Returns:
        None where there is nothing to compare with.
    """
    if len(named) < 2:
        return None
    first = _by_variable(named[0][1])
    rows, agreed = [], []
    for k, (attributions, events) in enumerate(named):
        how = f"{METHODS[attributions.method]}; {BASELINES[attributions.baseline]}"
        own = _by_variable(events)
        if not len(own):
            rows.append([how, "no map of this subject", DASH, DASH])
            continue
        top = list(own.items())[:NAMED]
        words = ", ".join(
            f"{label(variables.get(name), name)} {'▲' if total > 0 else '▼'}" for name, total in top
        )
        if k == 0:
            rows.append([how, words, "this page", "this page"])
            continue
        shared = [name for name in list(first)[:TOP] if name in list(own)[:TOP]]
        both = [name for name in shared if first[name] * own[name] > 0]
        n = min(TOP, len(first), len(own))
        rows.append([how, words, f"{len(shared)} of {n}", f"{len(both)} of {len(shared)}"])
        agreed.append(len(both) / max(n, 1))
    heads = [
        "Method; compared with",
        "Largest variables",
        "Shared of the largest",
        "Same direction",
    ]
    caption = (
        f"The same output explained in other ways; the {TOP} variables with the largest sums are "
        "compared with those of this page"
    )
    words = "No other map of this subject is shown."
    if agreed:
        share = float(np.mean(agreed))
        words = (
            "The ways agree on most of what moved the output."
            if share >= 0.75
            else "The ways agree in part: what they do not share holds for one baseline or method "
            "only."
            if share >= 0.4
            else "The ways disagree: read no single contribution of this page as a fact about the "
            "model without asking compared with what."
        )
    return {"words": words, "table": Table(caption, heads, rows)}


def _by_variable(events: pd.DataFrame) -> dict[str, float]:
    """Sum of each variable's contributions, the largest first."""
    sums: dict[str, float] = {}
    for name, value in zip(events["variable"].astype(str), events["attribution"], strict=True):
        sums[name] = sums.get(name, 0.0) + float(value)
    return dict(sorted(sums.items(), key=lambda item: -abs(item[1])))


def member_ranges(
    events: pd.DataFrame, members: Sequence[pd.DataFrame]
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Smallest and largest contribution of each event over maps of single members.

    Args:
        events: Of the subject, as the page shows them.
        members: Its events in the map of each member; empty where that was withheld.

    Returns:
        Low and high, NaN where a member lacks the event, and over how many members; None without.
    """
    held = [one for one in members if len(one)]
    if not held:
        return None
    key = _keys(events)
    values = np.stack(
        [
            pd.Series(one["attribution"].to_numpy(dtype=float), index=_keys(one))
            .reindex(key)
            .to_numpy(dtype=float)
            for one in held
        ]
    )
    return values.min(axis=0), values.max(axis=0), len(held)


def _keys(events: pd.DataFrame) -> pd.MultiIndex:
    """What an event is told apart by, with its number where it is there twice."""
    own = pd.DataFrame(
        {
            "kind": events["kind"].astype(str),
            "variable": events["variable"].astype(str),
            "time": events["time"].fillna(-np.inf),
        }
    )
    own["number"] = own.groupby(["kind", "variable", "time"]).cumcount()
    return pd.MultiIndex.from_frame(own)


def kinds_of_subject(row: Mapping[str, Any], unit: str, baseline: str) -> dict[str, Any]:
    """What the split by kind says of one subject.

    Args:
        row: Of `KindAttributions.to_pandas()`.
        unit: Of the contributions, in words.
        baseline: What values are compared with, in words.
    """
    found = {name: float(row[name]) for name in KINDS}
    total = sum(abs(value) for value in found.values())
    shares = {name: abs(value) / total if total > 0 else np.nan for name, value in found.items()}
    words = "Nothing moved the output of this record."
    if total > 0:
        parts = [f"{percent(shares[n])} to {KIND_WORDS[n]} ({signed(found[n])})" for n in KINDS]
        words = f"Of all that moved the output, {parts[0]}, {parts[1]} and {parts[2]} is credited."
    low, high = nice_range(min([*found.values(), 0.0]), max([*found.values(), 0.05]))
    told = "; ".join(f"{KIND_WORDS[name]}: {signed(found[name])}" for name in KINDS)
    chart = Chart("kinds", "Contribution of each kind", f"{told}.", 640, 130)
    panel = Panel(chart, 190, 8, 620, 86, (low, high), (3.0, 0.0))
    panel.x_axis(f"contribution, {unit}", nice_ticks(low, high, most=7))
    for k, name in enumerate(KINDS):
        left, right = sorted((panel.across(0.0), panel.across(found[name])))
        chart.rect("bar", left, panel.up(k) + 6, max(right - left, 1.0), 14)
        chart.text(180, panel.up(k) + 17, KIND_WORDS[name], "e")
    rows = [
        [KIND_WORDS[name], signed(found[name]), significant(float(row[f"{name}_error"]))]
        for name in KINDS
    ]
    caption = f"Contribution of each kind, {unit}; values compared with {baseline}"
    return {
        "words": words,
        "chart": chart,
        "table": Table(caption, ["Kind", "Contribution", "Error of the draws"], rows, (1, 2)),
    }


def changes_table(
    changes: pd.DataFrame, risk: float, variables: Mapping[str, Variable]
) -> dict[str, Any]:
    """The nearest single changes of one subject that cross a risk.

    Args:
        changes: The subject's rows of `nearest_changes`.
        risk: The threshold.
        variables: Of the schema, by name.
    """
    at = percent(risk)
    if not len(changes):
        return {
            "words": f"None of the measurements searched takes the model's output over {at} by "
            "itself, whatever its value within the training range.",
            "table": None,
        }
    rows = []
    for row in changes.to_dict("records"):
        name = str(row["variable"])
        variable = variables.get(name)
        unit = "" if variable is None or variable.unit == "1" else f" {printable(variable.unit)}"
        rows.append(
            [
                printable(variable.label or name) if variable else printable(name),
                hours(float(row["time"])),
                measured(float(row["value"])) + unit,
                measured(float(row["changed"])) + unit,
                f"{float(row['distance']):.1f}",
                percent(probability(float(row["logit"]))),
            ]
        )
    heads = ["What", "When", "Measured", "Had it read", "Distance (SD)", "Output then"]
    caption = (
        f"Nearest changes of one value that take the model's output over {at}, everything else as "
        "it was; distance in standard deviations of the training part"
    )
    return {"words": "", "table": Table(caption, heads, rows, (2, 3, 4, 5))}
