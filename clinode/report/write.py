"""The report a clinician reads offline: an index of the cohort and a page a subject.

Self-contained HTML, no script, no outside reference, the same bytes for the same inputs. Subjects
are named by their position in the cohort; times are hours since time zero; no identifier and no
date reaches a page. Pages are written through `clinode.folder`, so a folder is whole or absent.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from clinode.attribution import Attributions
from clinode.cohort import Classify, Cohort
from clinode.cohort.definition import CohortFlow
from clinode.control.portrait import Portrait
from clinode.errors import ArgumentError
from clinode.folder import check_writable, write_folder, write_json
from clinode.report import cohort as page3
from clinode.report import data as page6
from clinode.report import dynamics as page9
from clinode.report import methods as page7
from clinode.report import model_card as card
from clinode.report import performance as page4
from clinode.report import subgroups as page5
from clinode.report.facts import ModelFacts
from clinode.report.index import index_page
from clinode.report.material import SEED, Material, Told
from clinode.report.provenance import FILE as PROVENANCE
from clinode.report.provenance import digest_of, of_report
from clinode.report.rendering import page_environment, page_style
from clinode.report.subjects import Asked, subject_pages
from clinode.report.tables import Table, told_tables
from clinode.report.wording import LIMITS
from clinode.training import Ensemble, Evaluation, Run, evaluate
from clinode.training.drift import find_drift

CONTENTS = (
    ("index.html", "1 Model facts", "What the model is, for whom, how good, and the subjects."),
    (page3.FILE, "3 Cohort", "Which variables moved the output, and by how much."),
    (page4.FILE, "4 Performance", "Calibration, net benefit, who is found and who is missed."),
    (page5.FILE, "5 Subgroups", "The same measures by age, sex and other groups."),
    (page6.FILE, "6 Data and drift", "Who was let in, what is missing, how far it has moved."),
    (page7.FILE, "7 and 8 Methods", "Baselines, settings, checksums, TRIPOD+AI, the model card."),
    (page9.FILE, "9 Dynamics", "Where the model rests, and what its treatments move in it."),
)


def write_report(
    run: Run | Ensemble,
    cohort: Cohort,
    attributions: Attributions,
    folder: str | Path,
    *,
    evaluation: Evaluation | None = None,
    portrait: Portrait | None = None,
    facts: ModelFacts | None = None,
    flow: CohortFlow | None = None,
    kinds: Told | None = None,
    checks: Told | None = None,
    forecasts: Run | Ensemble | None = None,
    members: Sequence[Attributions] = (),
    others: Sequence[Attributions] = (),
    whole: Cohort | None = None,
    command: str | None = None,
    replace: bool = False,
) -> Path:
    """Write the pages on a model and its cohort, and one for every explained subject.

    They are `index.html` (the facts of the model), `cohort.html`, `performance.html`,
    `subgroups.html`, `data.html`, `methods.html` and `dynamics.html`; beside them lies
    `model-card.xml`, the CHAI Applied Model Card, and `provenance.json`, from what all of it was
    made, which every page shows as a table and `check_provenance` compares. Of a forecast or of
    survival there are no pages on risk groups, no `subgroups.html` and no card.

    Args:
        run: The run whose model was explained, or the ensemble: then the pages on the model show
            its first member, those of subjects what all members together answer.
        cohort: The cohort that was explained; its outcomes, where it has them, give performance.
        attributions: What `explain(run, cohort)` returned.
        folder: Where to; must not exist or be empty, unless `replace`.
        evaluation: What `evaluate(run, cohort)` returned; of a label it is computed here when
            absent and possible.
        portrait: What `portrait(run.model.latent_system)` returned; computed here when absent. A
            model without a latent system, or without treatments, has no such page; the index says
            why.
        facts: What the developer says of the model; what is missing is printed as not provided.
        flow: `DefinedTask.flow`, where the cohort is that of a task definition.
        kinds: Split of the attributions by kind (values, ordering, timing); anything with
            `to_dict`. Rows of single subjects are printed on their own pages only.
        checks: Checks of model and attributions; anything with `to_dict`.
        forecasts: A run that forecasts, for the hours after the prediction time on the subjects'
            pages (`run.of("forecast")` of a run of several tasks). None asks the explained one;
            where that does not forecast, its decoder, which has no interval.
        members: Attributions of single members of an ensemble, for the range of each of the
            largest contributions.
        others: Attributions of the same output under other baselines or by other methods, to be
            held against `attributions`.
        whole: Everything that was read, where `cohort` is a part of it, for the provenance.
        command: The call that asked for the pages, fit to be read by others; printed as it is.
        replace: Write over an earlier report in the same folder.

    Returns:
        The path of `index.html`.

    Raises:
        ArgumentError: The attributions name subjects that the cohort does not have, or what stands
            beside them is of another output; the run fills in values between others.
        OutputError: The folder is occupied or cannot be written.
    """
    check_writable(Path(folder), kind="report", replace=replace)
    known = set(cohort.subjects)
    strangers = sum(subject not in known for subject in attributions.gates["subject_id"])
    if strangers:
        raise ArgumentError(
            f"{strangers} explained subjects are not in this cohort",
            fix="pass the cohort that was given to explain",
        )
    lead, is_risk = run.members[0], isinstance(run.task, Classify)
    scored = _scored(run, cohort, attributions.outcome) if is_risk else None
    if evaluation is None and scored is not None:
        evaluation = evaluate(run, cohort)
    facts = facts or ModelFacts()
    asked = Asked(
        forecasts=forecasts,
        members=members,
        others=others,
        kinds=kinds,
        threshold=facts.threshold,
    )
    pages = subject_pages(run, cohort, attributions, asked, scored)
    material = Material(
        run=lead,
        cohort=cohort,
        attributions=attributions,
        evaluation=_of_outcome(evaluation, attributions.outcome) if is_risk else None,
        scored=scored,
        drift=find_drift(lead, cohort) if evaluation is None else evaluation.drift,
        facts=facts,
        flow=flow,
        kinds=kinds,
        checks=checks,
    )
    dynamics = page9.dynamics_page(lead, portrait)
    provenance = of_report(run, cohort, whole, _settings(attributions, asked, material), command)
    written = _cohort_pages(material, dynamics)
    written[page7.FILE] = page7.methods_page(material, provenance)
    if is_risk:
        alerts, groups = written[page4.FILE]["alerts"], written[page5.FILE]["measured"]
        xml = card.model_card(material, alerts, groups)
    else:
        alerts, xml = None, ""
        del written[page5.FILE]
        written[page4.FILE] = {"tables": _measures(evaluation), "template": "measures.html"}
    written[page7.FILE]["card"] = base64.b64encode(xml.encode()).decode()
    written["index.html"] = index_page(material, pages, alerts)
    written["index.html"]["dynamics"] = dynamics if isinstance(dynamics, str) else ""
    shared = {
        "style": page_style(),
        "limits": LIMITS,
        "outcome": material.outcome,
        "baseline": material.baseline,
        "provenance": provenance.table(),
        "contents": [
            {"file": file, "title": title, "about": about}
            for file, title, about in CONTENTS
            if file in written
        ],
    }

    def write(target: Path) -> None:
        environment = page_environment()
        rendered = [(name, page.get("template", name), page) for name, page in written.items()]
        rendered += [(str(page["file"]), "subject.html", page) for page in pages]
        for name, template, page in rendered:
            html = environment.get_template(template).render(**shared, **page, here=name)
            (target / name).write_text(html, encoding="utf-8", newline="\n")
        write_json(target / PROVENANCE, provenance.to_dict())
        if xml:
            (target / card.FILE).write_text(xml, encoding="utf-8", newline="\n")

    write_folder(Path(folder), write, kind="report", replace=replace)
    return Path(folder) / "index.html"


def _cohort_pages(material: Material, dynamics: dict[str, Any] | str) -> dict[str, dict[str, Any]]:
    """What each page on the cohort prints, by file, which is its template's name too."""
    found = {
        page3.FILE: page3.cohort_page(material),
        page4.FILE: page4.performance_page(material),
        page5.FILE: page5.subgroups_page(material),
        page6.FILE: page6.data_page(material),
    }
    return found if isinstance(dynamics, str) else found | {page9.FILE: dynamics}


def _of_outcome(evaluation: Evaluation | None, outcome: str) -> dict[str, Any] | None:
    """What was measured of one outcome, also where the task has several labels."""
    if evaluation is None:
        return None
    told = evaluation.to_dict()
    labels = told.get("labels")
    return told if labels is None else {**labels[outcome], "n_trained_on": told["n_trained_on"]}


def _measures(evaluation: Evaluation | None) -> list[Table]:
    """Everything that was measured of a task that is not a label."""
    if evaluation is None:
        return []
    beside = ("drift", "subgroups")  # on pages of their own
    told = {k: v for k, v in evaluation.to_dict().items() if k not in beside}
    return told_tables(told, "Measures")


def _scored(run: Run | Ensemble, cohort: Cohort, outcome: str) -> pd.DataFrame | None:
    """Probability and outcome of each prediction, or None where the cohort has no such outcome."""
    if outcome not in cohort.outcomes.columns:
        return None
    keys = [c for c in ("subject_id", "prediction_time") if c in cohort.outcomes.columns]
    predicted = run.predict(cohort)
    own = f"probability_{outcome}"  # of a second label
    if own in predicted.columns:
        predicted = predicted.assign(probability=predicted[own])
    table = predicted.merge(cohort.outcomes[[*keys, outcome]], on=keys)
    table = table.rename(columns={outcome: "outcome"}).dropna(subset=["outcome"])
    return table if len(table) else None


def _settings(attributions: Attributions, asked: Asked, material: Material) -> dict[str, Any]:
    """What was asked of the report: all that decides its pages beside run and data."""
    forecasts = asked.forecasts
    return {
        "outcome": attributions.outcome,
        "method": attributions.method,
        "baseline": attributions.baseline,
        "tolerance": attributions.tolerance,
        "players": attributions.players,
        "scale": attributions.scale,
        "hours": attributions.hours,
        "explained": len(attributions.gates),
        "seed": SEED,
        "kinds": asked.kinds is not None,
        "checks": material.checks is not None,
        "flow": material.flow is not None,
        "members": len(asked.members),
        "others": [[one.method, one.baseline] for one in asked.others],
        "forecasts": None
        if forecasts is None
        else [member.weights_sha256 for member in forecasts.members],
        "facts": digest_of(asdict(material.facts)),
    }
