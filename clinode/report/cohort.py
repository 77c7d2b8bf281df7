"""The index page: model, performance on the cohort, ranking of variables, ledger."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution import METHODS, Attributions
from clinode.cohort import Cohort
from clinode.errors import printable
from clinode.evaluation import Drift, Recalibration, calibration_curve
from clinode.evaluation.recalibration import MEASURES as RECALIBRATION_MEASURES
from clinode.figures import calibration_figure, data_uri, ranking_figure
from clinode.report.timeline import label
from clinode.report.wording import percent, significant
from clinode.training import Evaluation, Run

MEASURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}
RANKED = 20
SMALLEST_CELL = 11


def index_page(
    run: Run,
    cohort: Cohort,
    attributions: Attributions,
    evaluation: Evaluation | None,
    scored: pd.DataFrame | None,
    pages: Sequence[Mapping[str, Any]],
    drift: Drift,
) -> dict[str, Any]:
    """What the template of the index prints."""
    withheld = sum(page["map"] == "withheld" for page in pages)
    told = evaluation.to_dict() if evaluation is not None else None
    return {
        "n_subjects": len(cohort),
        "n_pages": len(pages),
        "warnings": _warnings(withheld, len(pages), scored),
        "facts": _facts(run, cohort, attributions),
        "pages": sorted(pages, key=lambda page: -float(page["output"])),
        "withheld_words": (
            f"{withheld} of {len(pages)} maps are withheld."
            if withheld
            else "Every map passed its checks."
        ),
        "performance": _performance(told),
        "subgroups": _subgroups(told),
        "calibration": _calibration(scored),
        "recalibration": _recalibration(run.calibration),
        "drift": _drift(drift),
        "ranking": _ranking(cohort, attributions),
        "ledger": cohort.ledger.to_pandas().to_dict("records"),
    }


def _warnings(withheld: int, n_pages: int, scored: pd.DataFrame | None) -> list[str]:
    found = []
    if n_pages and withheld / n_pages >= 0.01:
        found.append(f"{withheld} of {n_pages} attribution maps did not pass their checks.")
    n_events = 0 if scored is None else int(scored["outcome"].to_numpy().sum())
    if scored is not None and min(n_events, len(scored) - n_events) < 10:
        found.append("Fewer than ten subjects with, or without, the outcome: intervals are wide.")
    return found


def _facts(run: Run, cohort: Cohort, attributions: Attributions) -> list[tuple[str, str | None]]:
    schema = run.schema
    return [
        ("Outcome", printable(attributions.outcome)),
        ("Model", f"{type(run.model).__name__}, {run.n_parameters:,} weights"),
        ("Trained on", f"{schema.n_subjects:,} subjects, {len(schema.variables)} variables"),
        ("Observation window", f"{schema.window:g} h before the prediction time, at most"),
        ("Explained by", METHODS[attributions.method]),
        ("Sites and years", None),
        ("Intended use and users", None),
        ("When not to use", None),
        ("External validation", None),
        ("Contact", None),
    ]


def _performance(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    present = [m for m in MEASURES if m in told]
    baselines: Mapping[str, Mapping] = told.get("baselines", {})
    differences: Mapping[str, Mapping] = told.get("difference", {})
    names = [printable(n).replace("_", " ") for n in baselines]
    return {
        "words": (
            f"{told['n_records']:,} predictions of {told['n_subjects']:,} subjects, "
            f"{told['n_positive']:,} with the outcome. Intervals resample subjects."
        ),
        "columns": ["model", *names],
        "rows": [
            {
                "name": MEASURES[m],
                "cells": [_cell(told[m]), *(_cell(baselines[b].get(m)) for b in baselines)],
            }
            for m in present
        ],
        "difference_columns": [f"against {n}" for n in names],
        "differences": [
            {"name": MEASURES[m], "cells": [_cell(differences[b].get(m)) for b in differences]}
            for m in ("auroc", "auprc", "brier")
            if m in present
        ]
        if differences
        else [],
    }


def _cell(estimate: object) -> str:
    if not isinstance(estimate, Mapping):
        return "–"
    if estimate["value"] is None:
        return str(estimate.get("verdict", "undefined"))
    text = f"{estimate['value']:.3f}"
    if estimate.get("low") is not None:
        text += f" [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    return text.replace("-", "−")


def _subgroups(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    groups = (told or {}).get("subgroups")
    if not isinstance(groups, Sequence) or not groups:
        return None
    rows = []
    for group in groups:
        hidden = group.get("auroc") is None
        rows.append(
            [
                printable(group["group"]),
                str(group["n"]) if group["n"] is not None else f"<{SMALLEST_CELL}",
                str(group["n_events"]) if group["n_events"] is not None else f"<{SMALLEST_CELL}",
                "not shown" if hidden else _cell(group["auroc"]),
                "not shown" if hidden else _cell(group.get("ece")),
            ]
        )
    return {"columns": ["Group", "Subjects", "With outcome", "AUROC", "ECE"], "rows": rows}


def _calibration(scored: pd.DataFrame | None) -> dict[str, Any] | None:
    if scored is None or len(scored) < 2 * SMALLEST_CELL:
        return None
    predicted = scored["probability"].to_numpy(float)
    outcome = scored["outcome"].to_numpy(float)
    if len(np.unique(outcome)) < 2:
        return None
    bins = calibration_curve(outcome, predicted, n_bins=min(10, len(scored) // SMALLEST_CELL))
    rows = [
        {
            "predicted": percent(b["predicted"]),
            "observed": percent(b["observed"]) if b["observed"] > 0 else "0 %",
            "interval": f"{100 * b['low']:.0f} to {100 * b['high']:.0f} %",
            "count": b["n"],
        }
        for b in bins.to_dict("records")
    ]
    return {
        "image": data_uri(calibration_figure(bins, predicted)),
        "alt": "Calibration curve: observed frequency against predicted probability in groups of "
        "equal size, with a histogram of the predictions; the numbers are in the table below.",
        "caption": "On the dotted line, predicted and observed agree. Bars: 95 % Wilson intervals.",
        "rows": rows,
    }


def _recalibration(found: object) -> dict[str, Any] | None:
    """What speaks for the map that the run's risk goes through; None where it goes through none."""
    if not isinstance(found, Recalibration):
        return None
    names = {"log_loss": "Log loss", **MEASURES}
    return {
        "words": f"{found.verdict}. Fitted on {found.n_records:,} records that did not train the "
        f"model, {found.n_events:,} of them with the outcome.",
        "columns": ["Method", *(names[measure] for measure in RECALIBRATION_MEASURES)],
        "rows": [
            [row["method"], *(_cell(row[m].to_dict()) for m in RECALIBRATION_MEASURES)]
            for row in found.evidence
        ],
    }


def _drift(drift: Drift) -> dict[str, Any]:
    table = drift.to_pandas()
    shown = table[table["verdict"].isin(["large shift", "shift"])].head(RANKED)
    columns = ("kind", "name", "expected", "found", "verdict")
    return {
        "words": f"{drift.verdict}.",
        "rows": [
            [printable(row[column]) for column in columns]
            for row in pd.DataFrame(shown).to_dict("records")
        ],
    }


def _ranking(cohort: Cohort, attributions: Attributions) -> dict[str, Any] | None:
    table = attributions.by_variable().head(RANKED)
    if not len(table):
        return None
    schema = cohort.schema
    variables = {v.name: v for v in (*schema.inputs, *schema.statics, *schema.variables)}
    labels = [label(variables.get(str(n)), str(n)) for n in table["variable"]]
    return {
        "image": data_uri(ranking_figure(table, labels)),
        "alt": f"Mean absolute contribution of the {len(table)} variables that rank highest, per "
        "subject and per measurement; the numbers are in the table below.",
        "width": 760,
        "height": math.ceil(96 * (0.9 + 0.27 * len(table))),
        "caption": "Bars: 95 % bootstrap intervals over subjects.",
        "rows": [
            {
                "name": name,
                "subject": _interval(row, "per_subject"),
                "measurement": _interval(row, "per_measurement"),
                "count": f"{int(row['measurements']):,}",
            }
            for name, row in zip(labels, table.to_dict("records"), strict=True)
        ],
    }


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = significant(row[name])
    return f"{text} [{significant(low)}, {significant(high)}]" if np.isfinite(low) else text
