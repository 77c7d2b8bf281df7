"""Page 6: who was let in, what became of every row, what is missing, and how far it has moved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinode.cohort.check import find_suspicions
from clinode.cohort.definition import CohortFlow
from clinode.cohort.fingerprint import arrays_until
from clinode.errors import printable
from clinode.evaluation import hide_small
from clinode.evaluation.disclosure import SMALLEST_CELL
from clinode.report.charts import Dots, dot_chart, nice_range
from clinode.report.material import Material
from clinode.report.tables import DASH, NOT_SHOWN, Cell, Table
from clinode.report.wording import significant
from clinode.training.drift import seen_until

FILE = "data.html"
MOST_DRIFT_ROWS = 25
PSI_LINES = (0.1, 0.25)


def data_page(material: Material) -> dict[str, Any]:
    """What the template prints."""
    rows = material.drift.to_pandas().to_dict("records")
    return {
        "flow": None if material.flow is None else flow_steps(material.flow),
        "flow_labels": None if material.flow is None else _labels(material.flow),
        "ledger": _ledger(material),
        "is_balanced": material.cohort.ledger.balanced,
        "failures": _failures(material),
        "suspicions": _suspicions(material),
        "measured": _measured(material),
        "drift_words": f"{material.drift.verdict}.",
        "drift": _drift_figure(material, rows),
        "others": _other_drift(rows),
    }


def flow_steps(flow: CohortFlow) -> list[dict[str, str]]:
    """Each rule with the subjects it took away and left; small counts cannot be worked out."""
    out = np.array([step.n_subjects_out for step in flow.steps])
    hidden = hide_small(out)
    found = []
    for position, step in enumerate(flow.steps):
        # what is left tells the sum of all that went before: shown where no single step follows
        before = hidden[: position + 1]
        is_clear = not before.any() or position == len(flow.steps) - 1
        ahead = " (looks beyond the prediction time)" if step.looks_ahead else ""
        found.append(
            {
                "rule": printable(step.rule) + ahead,
                "out": NOT_SHOWN if hidden[position] else f"{step.n_subjects_out:,}",
                "left": f"{step.n_subjects_left:,}" if is_clear else NOT_SHOWN,
            }
        )
    return found


def _labels(flow: CohortFlow) -> str:
    counts = {
        "with the outcome": flow.n_positive,
        "without it": flow.n_negative,
        "not known": flow.n_unknown,
    }
    hidden = hide_small(np.array(list(counts.values())))
    told = [
        f"{NOT_SHOWN if gone else f'{count:,}'} {words}"
        for (words, count), gone in zip(counts.items(), hidden, strict=True)
    ]
    return "Prediction times that are left: " + ", ".join(told) + "."


def _ledger(material: Material) -> Table:
    rows = [
        [r["table"], r["action"], printable(r["reason"]) or DASH, f"{r['rows']:,}"]
        for r in material.cohort.ledger.to_pandas().to_dict("records")
    ]
    return Table(
        "Rows by table, what happened to them, and the rule",
        ["Table", "Action", "Rule", "Rows"],
        rows,
        (3,),
    )


def _failures(material: Material) -> Table | None:
    """Values that broke a rule of range, unit or type, by variable."""
    table = material.cohort.ledger.by_variable()
    table = table.query("action in ('dropped', 'converted', 'merged') and variable != ''")
    table = table.sort_values("rows", ascending=False, kind="stable")
    rows = [
        [material.label(r["variable"]), r["table"], r["action"], printable(r["reason"]),
         f"{r['rows']:,}"]
        for r in table.head(40).to_dict("records")
    ]  # fmt: skip
    if not rows:
        return None
    columns = ["Variable", "Table", "Action", "Rule", "Rows"]
    return Table("The variables with most such rows first", columns, rows, (4,))


def _suspicions(material: Material) -> list[str]:
    """What a person should look at; of few subjects only that there are some."""
    found = []
    for finding in find_suspicions(material.cohort):
        if finding.kind == "empty" and not finding.variable and finding.rows < SMALLEST_CELL:
            words = finding.text.partition(":")[0]
            found.append(f"{finding.table}: {words}: fewer than {SMALLEST_CELL}")
            continue
        place = material.label(finding.variable) if finding.variable else finding.table
        found.append(f"{place}: {printable(finding.text)}")
    return found


def _measured(material: Material) -> Table:
    """How many subjects have a variable, and how often, in training and here."""
    cohort = material.cohort
    arrays = arrays_until(cohort, seen_until(cohort, material.run.schema, material.run.task))
    known = {entry["name"]: entry for entry in material.run.fingerprint["seen"]["variables"]}
    n_training = material.run.fingerprint["seen"]["n_subjects"]
    names = [variable.name for variable in cohort.schema.variables]
    absent = [name for name in known if name not in names]
    rows: list[list[str | Cell]] = []
    for position, name in enumerate(names):
        own = arrays.subject_index[arrays.variable_index == position]
        entry = known.get(name)
        rows.append(
            [
                material.label(name),
                _training_share(entry),
                _share(len(np.unique(own)), len(cohort)),
                _training_rate(entry),
                _rate(len(own), len(np.unique(own))),
            ]
        )
    rows += [[material.label(n), _training_share(known[n]), Cell("0 %", "h5"), "", DASH]
             for n in absent]  # fmt: skip
    return Table(
        f"Up to the prediction times; training part of {n_training} subjects, here "
        f"{len(cohort):,}. The stronger the shade, the more subjects lack it",
        ["Variable", "Without it, training", "Without it, here", "Values a subject, training",
         "Values a subject, here"],
        rows,
        (1, 2, 3, 4),
    )  # fmt: skip


def _share(n_with: int, n: int) -> Cell | str:
    lacking = n - n_with
    if 0 < lacking < SMALLEST_CELL or 0 < n_with < SMALLEST_CELL:
        return NOT_SHOWN
    return _shade(lacking / max(n, 1))


def _training_share(entry: Mapping[str, Any] | None) -> Cell | str:
    if entry is None:
        return "not in training"
    return NOT_SHOWN if entry["missing"] is None else _shade(entry["missing"])


def _shade(share: float) -> Cell:
    return Cell(f"{100 * share:.0f} %", f"h{min(int(5.999 * share), 5)}")


def _training_rate(entry: Mapping[str, Any] | None) -> str:
    if entry is None or not isinstance(entry["n_subjects"], int) or not entry["n_subjects"]:
        return DASH
    return significant(entry["n"] / entry["n_subjects"], 3)


def _rate(n: int, n_with: int) -> str:
    return significant(n / n_with, 3) if n_with >= SMALLEST_CELL else DASH


def _drift_figure(material: Material, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Shift of the values, and of how often they are measured, of the variables that moved most."""
    values = {row["name"]: row for row in rows if row["kind"] == "value"}
    rates = {row["name"]: row for row in rows if row["kind"] == "rate"}
    names = [n for n in values if np.isfinite(values[n]["measure"])]
    names = sorted(names, key=lambda n: (-values[n]["measure"], n))[:MOST_DRIFT_ROWS]
    if not names:
        return None
    ratio = [10 ** rates[n]["measure"] if n in rates else np.nan for n in names]
    reach = [10 ** rates[n]["chance"] if n in rates else np.nan for n in names]
    chart = dot_chart(
        "drift",
        "Shift of values and of measurement rates from the training part",
        f"{len(names)} variables, the largest shift of values first. The numbers stand in the "
        "table.",
        [material.label(n) for n in names],
        [
            Dots(
                title="Values: stability index",
                unit="",
                value=[values[n]["measure"] for n in names],
                low=[0.0] * len(names),
                high=[values[n]["chance"] for n in names],
                rules=PSI_LINES,
            ),
            Dots(
                title="Rate: here / training",
                unit="",
                value=ratio,
                low=[1 / r for r in reach],
                high=reach,
                rules=(1.0,),
                within=_around_one([*ratio, *reach, *(1 / r for r in reach)]),
            ),
        ],
    )
    table = [
        [
            material.label(n),
            f"{values[n]['expected']} / {values[n]['found'] or DASH}",
            significant(values[n]["measure"]),
            str(values[n]["verdict"]),
            significant(r) if np.isfinite(r) else DASH,
            str(rates[n]["verdict"]) if n in rates else DASH,
        ]
        for n, r in zip(names, ratio, strict=True)
    ]
    return {
        "chart": chart,
        "caption": "Dots: found. Lines: what chance alone gives (99 %). Dotted: indices of 0.1 and "
        "0.25, from which the field speaks of a shift and of a large one; an equal rate.",
        "tables": [
            Table(
                "Values and measurement rates beside the training part",
                ["Variable", "Training / here", "Stability index", "Values", "Rate ratio", "Rate"],
                table,
                (2, 4),
            )
        ],
    }


def _around_one(ratios: Sequence[float]) -> tuple[float, float]:
    known = [ratio for ratio in ratios if np.isfinite(ratio)]
    return nice_range(min([*known, 0.95]), max([*known, 1.05]))


def _other_drift(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Units, unknown and absent variables, and the frequency of the outcome."""
    shown = [row for row in rows if row["kind"] in ("unit", "unknown", "absent", "outcome")]
    if not shown:
        return None
    return Table(
        "Units, variables and outcome beside the training part",
        ["Kind", "Name", "Training", "Here", "Verdict"],
        [
            [printable(row[c]) for c in ("kind", "name", "expected", "found", "verdict")]
            for row in shown
        ],
    )
