"""The report a clinician reads offline: an index of the cohort and a page a subject.

Self-contained HTML, no script, no outside reference, the same bytes for the same inputs. Subjects
are named by their position in the cohort; times are hours since time zero; no identifier and no
date reaches a page. Pages are written through `clinode.folder`, so a folder is whole or absent.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clinode.attribution import Attributions
from clinode.attribution.explained import LOG_ODDS
from clinode.cohort import Classify, Cohort, Variable
from clinode.control.portrait import Portrait
from clinode.errors import ArgumentError, printable
from clinode.evaluation import Recalibration
from clinode.folder import check_writable, write_folder
from clinode.report.cohort import index_page
from clinode.report.dynamics import FILE, dynamics_page
from clinode.report.subject import subject_page
from clinode.report.wording import (
    BASELINES,
    LIMITS,
    ordinal,
)
from clinode.training import Evaluation, Run, evaluate
from clinode.training.drift import find_drift


def write_report(
    run: Run,
    cohort: Cohort,
    attributions: Attributions,
    folder: str | Path,
    *,
    evaluation: Evaluation | None = None,
    portrait: Portrait | None = None,
    replace: bool = False,
) -> Path:
    """Write `index.html`, a page for every explained subject, and one on the model's dynamics.

    Args:
        run: The run whose model was explained.
        cohort: The cohort that was explained; its outcomes, where it has them, give performance.
        attributions: What `explain(run, cohort)` returned.
        folder: Where to; must not exist or be empty, unless `replace`.
        evaluation: What `evaluate(run, cohort)` returned; computed here when absent and possible.
        portrait: What `portrait(run.model.latent_system)` returned; computed here when absent. A
            model without a latent system, or without treatments, has no such page; the index says
            why.
        replace: Write over an earlier report in the same folder.

    Returns:
        The path of `index.html`.

    Raises:
        ArgumentError: The attributions name subjects that the cohort does not have; the run is not
            of a classification, whose risk is what the pages are about.
        OutputError: The folder is occupied or cannot be written.
    """
    check_writable(Path(folder), kind="report", replace=replace)
    if not isinstance(run.task, Classify):
        kind = run.task.to_dict()["kind"]
        raise ArgumentError(
            f"pages show the risk of an outcome, and the task of this run is {kind!r}",
            fix="hand over its table of predictions and its evaluation",
        )
    if attributions.players != "event" or attributions.scale != LOG_ODDS:
        raise ArgumentError(
            "pages show what each measured event adds to the log odds of an outcome, and these "
            f"attributions credit every {attributions.players} in {attributions.scale}",
            fix='explain with method="integrated_gradients", or with players="event"',
        )
    position = {subject: k for k, subject in enumerate(cohort.subjects)}
    strangers = sum(subject not in position for subject in attributions.gates["subject_id"])
    if strangers:
        raise ArgumentError(
            f"{strangers} explained subjects are not in this cohort",
            fix="pass the cohort that was given to explain",
        )
    scored = _scored(run, cohort, attributions.outcome)
    if evaluation is None and scored is not None:
        evaluation = evaluate(run, cohort)
    shared = {
        "style": Markup(_environment().get_template("style.css").render()),  # our own file, no data
        "limits": LIMITS,
        "outcome": printable(attributions.outcome),
        "baseline": BASELINES[attributions.baseline],
        "provenance": _provenance(run, cohort, attributions),
    }
    pages = _subject_pages(run, cohort, attributions, position, scored)
    drift = find_drift(run, cohort) if evaluation is None else evaluation.drift
    index = index_page(run, cohort, attributions, evaluation, scored, pages, drift)
    dynamics = dynamics_page(run, portrait)
    index["dynamics"] = dynamics if isinstance(dynamics, str) else dynamics["verdict"]
    index["dynamics_file"] = None if isinstance(dynamics, str) else FILE

    def write(target: Path) -> None:
        environment = _environment()
        template = environment.get_template("subject.html")
        for page in pages:
            html = template.render(**shared, **page)
            (target / str(page["file"])).write_text(html, encoding="utf-8", newline="\n")
        if not isinstance(dynamics, str):
            html = environment.get_template("dynamics.html").render(**shared, **dynamics)
            (target / FILE).write_text(html, encoding="utf-8", newline="\n")
        html = environment.get_template("index.html").render(**shared, **index)
        (target / "index.html").write_text(html, encoding="utf-8", newline="\n")

    write_folder(Path(folder), write, kind="report", replace=replace)
    return Path(folder) / "index.html"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("clinode.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _subject_pages(
    run: Run,
    cohort: Cohort,
    attributions: Attributions,
    position: dict[object, int],
    scored: pd.DataFrame | None,
) -> list[dict[str, Any]]:
    variables = _named(cohort)
    known = list(run.schema.variables)
    events = dict(list(_with_ends(attributions.to_pandas(), cohort).groupby("subject_id")))
    empty = _with_ends(attributions.to_pandas().head(0), cohort)
    seen = _measured(cohort, attributions.gates)
    found = run.calibration
    recalibration = found if isinstance(found, Recalibration) else None
    pages: list[dict[str, Any]] = []
    for gate in attributions.gates.to_dict("records"):
        subject = gate["subject_id"]
        own = events.get(subject, empty)
        values = seen.get(subject, [])
        page = subject_page(
            events=own,
            gate=gate,
            variables=variables,
            known=known,
            present=set(values),
            n_present=len(values),
            scored=scored,
            tolerance=attributions.tolerance,
            recalibration=recalibration,
        )
        name = ordinal(position[subject])
        top = page.get("by_variable") or [{"name": "–", "contribution": ""}]
        pages.append(
            page
            | {
                "ordinal": name,
                "file": f"subject-{name[1:]}.html",
                "percent": page["risk"]["percent"],
                "output": float(gate["output"]),
                "events": len(values),
                "largest": f"{top[0]['name']} {top[0]['contribution']}",
                "map": "withheld" if gate["withheld"] else "shown",
            }
        )
    return pages


def _named(cohort: Cohort) -> dict[str, Variable]:
    schema = cohort.schema
    return {v.name: v for v in (*schema.inputs, *schema.statics, *schema.variables)}


def _with_ends(events: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The events with the end of each treatment beside its start."""
    if "input" not in set(events["kind"]):
        return events.assign(end=np.nan)
    ends = cohort.inputs.rename(columns={"start": "time"})
    keys = ["subject_id", "kind", "time", "variable", "value"]
    ends = ends.assign(kind="input").astype({"variable": str}).drop_duplicates(keys)
    return events.astype({"variable": str}).merge(ends[[*keys, "end"]], how="left", on=keys)


def _measured(cohort: Cohort, gates: pd.DataFrame) -> dict[object, list[str]]:
    """The variable of every value at or before each explained subject's prediction time."""
    table = cohort.observations[["subject_id", "time", "variable"]].merge(
        gates[["subject_id", "prediction_time"]], on="subject_id"
    )
    table = table[table["time"] <= table["prediction_time"]]
    return {
        subject: list(own.astype(str)) for subject, own in table.groupby("subject_id")["variable"]
    }


def _scored(run: Run, cohort: Cohort, outcome: str) -> pd.DataFrame | None:
    """Probability and outcome of each prediction, or None where the cohort has no such outcome."""
    if outcome not in cohort.outcomes.columns:
        return None
    keys = [c for c in ("subject_id", "prediction_time") if c in cohort.outcomes.columns]
    table = run.predict(cohort).merge(cohort.outcomes[[*keys, outcome]], on=keys)
    table = table.rename(columns={outcome: "outcome"}).dropna(subset=["outcome"])
    return table if len(table) else None


def _provenance(run: Run, cohort: Cohort, attributions: Attributions) -> str:
    return (
        f"clinode {run.version}; model {type(run.model).__name__}, seed {run.seed}; weights "
        f"SHA-256 {run.weights_sha256[:16]}; data {cohort.fingerprint()['sha256'][:16]}; "
        f"method {attributions.method}, baseline {attributions.baseline}."
    )
